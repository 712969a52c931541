"""What tail calls take of the frames and the stack. On a NIC a tail call's target goes on in the frame of the function
that calls it, with what that one's callers leave of the 8 frames and of the 512 bytes, where Linux gives it all of both
(docs/architecture.md). So whether programs fit depends on what their PROG_ARRAYs hold.

A chain of tail calls takes what the callers of each function on it take, and at its end what the last program does. It
has 33 links at most, as many as a packet may make tail calls; one that leads back to where it began fits if no function
on it has callers."""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, cast

from bpfnic.host.image import Layout, Room
from bpfnic.spec.addresses import FRAMES, STACK_BYTES
from bpfnic.spec.maps import MAX_TAIL_CALLS

if TYPE_CHECKING:
    from bpfnic.host.object import Program
    from bpfnic.host.registermaps import RegisterProgramArray
    from bpfnic.host.verifier.verdict import StackUse


@dataclass(frozen=True)
class Site:
    """A tail call: the name of the function around it, what that one's callers take, and the maps that it is given, on
    a device or by name, with the index where that is known."""

    function: str
    above: Room
    given: frozenset[tuple[Hashable, int | None]]


@dataclass(frozen=True, eq=False)
class Demand:
    """What a verified program takes without its tail calls, and where it makes these."""

    name: str
    takes: Room
    sites: tuple[Site, ...]

    @staticmethod
    def of(whole: "Program", layout: Layout, use: "StackUse", maps: Mapping[str, Hashable]) -> "Demand":
        """Of a program with its routines, as it is laid out. `maps`: by the names that the verifier knows."""
        starts = sorted(whole.functions)
        sites = (
            Site(whole.functions[starts[bisect_right(starts, call.function) - 1]], call.above,
                 frozenset((maps[name], index) for name, index in given))
            for call, given in zip(layout.tail_calls, use.tail_calls, strict=True)
        )  # fmt: skip
        return Demand(whole.name, layout.takes, tuple(site for site in sites if site.given))

    @property
    def deepens(self) -> bool:
        """Whether a target may have less than all to go on with."""
        return any(any(site.above) for site in self.sites)


class _Link(NamedTuple):
    """A tail call that may be made: from a site to a program, by way of a map's entry."""

    site: Site
    entry: str
    target: Demand


Entries = Callable[[Hashable], Iterable[tuple[int, str, Demand]]]
"""The verified programs in a map: index, the entry's name, program."""


def excess(programs: Iterable[Demand], entries: Entries) -> str:
    """A line that names a chain which takes more than there is, of those that begin at one of these programs; "" where
    all of them fit."""
    begins = list(programs)
    links = _links(begins, entries)
    for part, (limit, what) in enumerate(((FRAMES, "frames"), (STACK_BYTES, "bytes of stack"))):
        # What chains of at most so many links take, by the program that they begin at, with their first link.
        most: list[dict[Demand, tuple[int, _Link | None]]] = [{each: (each.takes[part], None) for each in links}]
        for _ in range(MAX_TAIL_CALLS):
            shorter = most[-1]
            longer = {each: shorter[each] for each in links}
            for each in links:
                for link in links[each]:
                    takes = link.site.above[part] + shorter[link.target][0]
                    if takes > longer[each][0]:
                        longer[each] = takes, link
            if longer == shorter:
                break
            most.append(longer)
            if over := next((each for each in begins if longer[each][0] > limit), None):
                chain, end = _chain(over, most)
                told = _told(chain, part)
                return (f"tail calls would take {longer[over][0]} {what}, of the {limit} that there are: {told}; "
                        f"{end.name} needs {end.takes[part]}")  # fmt: skip
    return ""


def _links(begins: Iterable[Demand], entries: Entries) -> dict[Demand, list[_Link]]:
    """The tail calls of all programs that can be reached, one for each site and target."""
    links: dict[Demand, list[_Link]] = {}
    waiting = list(begins)
    while waiting:
        program = waiting.pop()
        if program in links:
            continue
        found: dict[tuple[int, Demand], _Link] = {}
        for number, site in enumerate(program.sites):
            for held, wanted in site.given:
                for index, entry, target in entries(held):
                    if wanted in (None, index):
                        found.setdefault((number, target), _Link(site, entry, target))
        links[program] = list(found.values())
        waiting += (link.target for link in links[program])
    return links


def _chain(
    begin: Demand, most: list[dict[Demand, tuple[int, _Link | None]]]
) -> tuple[list[tuple[Demand, _Link]], Demand]:
    """The links of the longest of these chains from a program on, each with the program that makes it, and the program
    at its end."""
    chain, at = [], begin
    for amounts in reversed(most):
        if (link := amounts[at][1]) is None:
            break
        chain.append((at, link))
        at = link.target
    return chain, at


_SHOWN = 4


def _told(chain: list[tuple[Demand, _Link]], part: int) -> str:
    parts = []
    for (caller, link), again in groupby(chain):
        times = len(list(again))
        above = link.site.above[part]
        what = ("frame" if above == 1 else "frames") if part == 0 else "bytes"
        deep = f" from {link.site.function}(), {above} {what} deep" if above else ""
        often = f", {times} times" if times > 1 else ""
        parts.append(f"{caller.name} tail-calls {link.entry} ({link.target.name}){deep}{often}")
    if len(parts) > _SHOWN:
        parts[_SHOWN - 1 : -1] = ["…"]
    return "; ".join(parts)


class TailCalls:
    """Those that the verified programs on a device may make. What is unloaded, replaced or deleted counts until the
    packets in flight have left, which may still run it. Of programs that nobody verified nothing is asked: no tail call
    of a verified one leads to them (programarray.py).

    `free_later(action)`: do it when all packets that are under way have left; `reclaim()`: do what is due of it."""

    def __init__(self, free_later: Callable[[Callable[[], None]], None], reclaim: Callable[[], None]):
        self._free_later, self._reclaim = free_later, reclaim
        self._programs: list[Demand] = []
        self._left: list[tuple[RegisterProgramArray, int, Demand]] = []

    def refusal(self, program: Demand) -> str:
        """Why a program can't be loaded, with what its maps hold; "" if it can."""
        self._reclaim()
        return excess([program], self._entries) if program.deepens or self._deepened else ""

    def add(self, program: Demand) -> None:
        """It is loaded."""
        self._programs.append(program)

    def remove(self, program: Demand) -> None:
        """It is gone, and no packet runs it."""
        self._programs.remove(program)

    def change(self, array: "RegisterProgramArray", index: int, demand: Demand | None) -> None:
        """A program, or none that is known, is about to be put at an index. Raises OSError EINVAL where that could make
        a chain of tail calls take more than there is."""
        if not self._deepened:
            return  # whatever maps hold, each program has all there is
        if before := dict(array.demands()).get(index):
            left = array, index, before
            self._left.append(left)
            self._free_later(lambda: self._left.remove(left))
        self._reclaim()
        if demand is None:
            return

        if why := excess(self._programs, partial(self._entries, changed=(array, index, demand))):
            raise OSError(EINVAL, why)

    @property
    def _deepened(self) -> bool:
        return any(program.deepens for program in self._programs)

    def _entries(
        self, held: Hashable, changed: "tuple[RegisterProgramArray, int, Demand] | None" = None
    ) -> Iterator[tuple[int, str, Demand]]:
        array = cast("RegisterProgramArray", held)
        found = dict(array.demands())
        if changed and changed[0] is array:
            found[changed[1]] = changed[2]
        yield from ((index, array.entry_name(index), demand) for index, demand in found.items())
        for left, index, demand in self._left:
            if left is array:
                yield index, f"{array.entry_name(index)} as it was for packets in flight", demand
