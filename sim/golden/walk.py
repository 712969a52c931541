"""A program's walk through a hash map (spec.helpers.MAP_WALK, of which bpf_for_each_map_elem is made)."""

from bpfnic.sim.golden.hash import Hash


class Walk:
    """Which keys may be met next, and whether it may be over. A key that goes and comes back is another one."""

    def __init__(self, entries: Hash):
        self.entries = entries
        self.due = dict(entries.since)  # what was there at its beginning, has stayed, and hasn't been met
        self.met: set[int] = set()
        self.twice = False  # what has been met may be met once more, for its place was lost
        self._look()

    def _look(self) -> None:
        self.came, self.went = self.entries.came, self.entries.went

    def step(self) -> dict[int, bytes]:
        """The keys that may be met, by place. None has to be, where `due` is empty behind it."""
        entries = self.entries
        went, came = entries.went - self.went, entries.came - self.came
        self.twice |= went > 1 or (went > 0 and came > 0)
        self._look()
        self.due = {key: number for key, number in self.due.items() if entries.since.get(key) == number}
        return {place: key for key, place in entries.places.items() if self.twice or entries.since[key] not in self.met}

    def meet(self, key: bytes, number: int) -> None:
        """It is this key, of that number in Hash.since when the step was made."""
        self.met.add(number)
        if self.due.get(key) == number:
            del self.due[key]
