"""The unit of work: a *round* is some batches of programs on a fresh pair of NICs, made from the seed and the round's
number alone. So a campaign does the same rounds whatever the number of processes, and any of them can be repeated."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from bpfnic.host.device import DeviceOptions, Pacing, Retirement, Traffic
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import raw, vector, world
from bpfnic.sim.fuzz.compare import OPTIONS, Case, Pair, Parting, describe_maps, prepare
from bpfnic.sim.fuzz.coverage import Item
from bpfnic.sim.fuzz.friendly import Friendly
from bpfnic.sim.fuzz.generate import Device, Generator, focus_of
from bpfnic.sim.fuzz.program import Line, Program, listing, make
from bpfnic.sim.fuzz.shrink import Shrinker
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import XdpAction

OpenPair = Callable[[], Pair]

BATCHES = 10
PROGRAMS = 3  # a batch: one for each interface
PACKETS = 24  # for each of them
MODES = ("programs", "bytes", "linux")
KERNEL_PROGRAMS, KERNEL_PACKETS = 60, 8  # a round for the kernel
RAW_EVERY, LINUX_EVERY = 8, 8
"""Of all modes together, one round of so many is of bytes, and one for the kernel."""


@dataclass
class Failure:
    """A difference, made small. `listing` of its programs; `lines`: what lockstep shows of it; `vector`: the file's
    text, or why there is none; `size`: options of the command line that say what NIC it is."""

    seed: int
    mode: str
    round: int
    size: str
    what: str = ""
    listing: list[str] = field(default_factory=list)
    lines: tuple[str, ...] = ()
    vector: str | None = None
    no_vector: str | None = None

    @property
    def command(self) -> str:
        """What repeats it."""
        return f"bpfnic fuzz --mode {self.mode} --seed {self.seed} --round {self.round} --rounds 1{self.size}"


@dataclass
class Tally:
    """What rounds did. `programs`, `instructions` compared on golden and rtl; `hits` of coverage; `causes` of packets'
    ends; `loaded`, `refused`: what the loader did with bytes, `verified` those of them
    that the verifier accepts; `kernel`: programs that it ran, `kernel_refused`: that
    its verifier refused, `kernel_packets` compared."""

    rounds: int = 0
    programs: int = 0
    packets: int = 0
    instructions: int = 0
    hits: Counter[Item] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    loaded: int = 0
    refused: int = 0
    verified: int = 0
    kernel: int = 0
    kernel_refused: int = 0
    kernel_packets: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Another tally's counts too."""
        for name in vars(self):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)
            else:
                setattr(self, name, mine + theirs)


def mode_of(mode: str, number: int, kernel: bool) -> str:
    """The mode of a round where all are asked for. `kernel`: it can be used here."""
    if mode != "all":
        return mode
    if number % RAW_EVERY == RAW_EVERY // 2:
        return "bytes"
    return "linux" if kernel and number % LINUX_EVERY == LINUX_EVERY - 1 else "programs"


def chance_of(seed: int, mode: str, number: int, batch: int) -> random.Random:
    """The source of all that a batch is made of."""
    return random.Random(f"{seed}/{mode}/{number}/{batch}")


def batch(chance: random.Random, device: Device, mode: str, slots: int) -> Case:
    """A batch's programs, frames and memory."""
    if mode == "bytes":
        programs = tuple(raw.program(chance, device) for _ in range(PROGRAMS))
        budget = raw.BUDGET
    else:
        focus = focus_of(device, chance)
        programs = tuple(
            Generator(device, chance, focus=focus).program(chance.randrange(8, 50)) for _ in range(PROGRAMS)
        )
        budget = 40 if chance.random() < 0.1 else 600
    frames = tuple(world.frames(chance, PROGRAMS * PACKETS, PROGRAMS))
    pacing = Pacing(ingress_idle=chance.choice((0, 0, 20)), egress_stall=chance.choice((0, 0, 30)),
                    seed=chance.getrandbits(16))  # fmt: skip
    case = Case(programs, frames, world.memory(chance), budget, pacing)
    length = case.entries()[-1] + programs[-1].slots()[-1] + 2
    return replace(case, first=chance.choice((0, slots - length, chance.randrange(slots - length))))


def size_of(options: DeviceOptions) -> str:
    """The command line's options for a NIC of another size than the usual one."""
    names = [name for name in ("cores", "threads") if getattr(options, name) != getattr(OPTIONS, name)]
    return "".join(f" --{name} {getattr(options, name)}" for name in names)


def run_round(open_pair: OpenPair, seed: int, mode: str, number: int) -> Tally:
    """One round of golden against the other of a pair. It ends with the first difference."""
    tally = Tally(rounds=1)
    pair = open_pair()
    size = size_of(pair.options)
    try:
        device = Device(pair.has)
        for index in range(BATCHES):
            chance = chance_of(seed, mode, number, index)
            case = batch(chance, device, mode, pair.has.program_slots)
            result = pair.run(case)
            if result.strayed:
                tally.hits.update(pair.hits)
                pair.close()
                pair = open_pair()
                continue
            tally.programs += len(case.programs)
            tally.packets += len(case.frames)
            tally.instructions += result.instructions
            tally.causes.update({cause.name: count for cause, count in result.causes.items()})
            if result.parting:
                tally.failures.append(_shrunk(open_pair, Failure(seed, mode, number, size), case, result.parting))
                break
            if mode == "bytes" and (problem := raw.offer_to_loader(case.programs, chance, tally)):
                tally.failures.append(Failure(seed, mode, number, size, problem.what, problem.listing,
                                              no_vector="it is the loader's"))  # fmt: skip
                break
        else:
            if said := pair.counters_differ():
                tally.failures.append(Failure(seed, mode, number, size, said, no_vector="no packet tells of it"))
        tally.hits.update(pair.hits)
    finally:
        pair.close()
    return tally


def kernel_round(seed: int, number: int) -> Tally:
    """One round of golden against the running kernel."""
    from bpfnic.sim.fuzz import kernel

    tally = Tally(rounds=1)
    judge = kernel.Judge()
    try:
        for index in range(KERNEL_PROGRAMS):
            chance = chance_of(seed, "linux", number, index)
            program = Friendly(chance).program(chance.randrange(5, 60))
            frames = tuple(world.frames(chance, KERNEL_PACKETS, 1))
            case = Case((program,), frames, world.memory(chance), kernel.BUDGET)
            try:
                parting = judge.run(case)
            except kernel.KernelRefused:
                tally.kernel_refused += 1
                continue
            tally.kernel += 1
            tally.kernel_packets += len(frames)
            if parting:
                shrinker = Shrinker(_as_told(judge.fails, parting), judge.trace, judge.memory_after, case, parting)
                shrinker.shrink()
                lines = listing(shrinker.case.programs[0].instructions())
                tally.failures.append(Failure(seed, "linux", number, "", shrinker.parting.what, lines,
                                              no_vector="its map and its verifier are the kernel's"))  # fmt: skip
                break
    finally:
        judge.close()
    return tally


def _as_told(fails: Callable[[Case], Parting | None], first: Parting) -> Callable[[Case], Parting | None]:
    """Only what differs by the same values: a smaller program may return an address, or read what nobody wrote, and
    differ for that."""
    told = first.what.partition(": ")[2]

    def fails_so(case: Case) -> Parting | None:
        parting = fails(case)
        return parting if parting and parting.what.partition(": ")[2] == told else None

    return fails_so


def _shrunk(open_pair: OpenPair, failure: Failure, case: Case, parting: Parting) -> Failure:
    """What failed and how, made small where it fails on a fresh pair too."""
    judge = Judge(open_pair)
    try:
        again = judge.fails(case)
        if again is None:
            failure.no_vector = "it takes what the batches before it in the round left behind"
        else:
            shrinker = Shrinker(judge.fails, judge.trace, judge.memory_after, case, again)
            shrinker.shrink()
            case, parting = shrinker.case, shrinker.parting
            failure.no_vector = vector.inexpressible(case)
        failure.what, failure.lines = parting.what, parting.lines
        lines = [line for program in case.programs for line in ["", *listing(program.instructions())]]
        failure.listing = lines[1:]
        if failure.no_vector is None:
            comments = [f"Found by {failure.command}", parting.what]
            name = f"fuzz_{failure.seed}_{failure.round}"
            failure.vector = vector.text(case, name, judge.golden(case), comments)
        return failure
    finally:
        judge.close()


class Judge:
    """Runs cases for the shrinker: on a pair that is opened anew behind each difference."""

    def __init__(self, open_pair: OpenPair):
        self._open = open_pair
        self._pair: Pair | None = None
        self._options = OPTIONS
        self._map_types: Collection[MapType] | None = None

    def fails(self, case: Case) -> Parting | None:
        self._pair = self._pair or self._open()
        self._options, self._map_types = self._pair.options, self._pair.has.map_types
        result = self._pair.run(case)
        parting = result.parting
        if parting is not None or result.strayed:
            self.close()  # what it left behind shall make no other case fail
        return parting

    def trace(self, case: Case) -> Sequence[Retirement]:
        return self._run(case)[0].retirements or []

    def memory_after(self, case: Case) -> bytes:
        return self._run(case)[1]

    def golden(self, case: Case) -> vector.Seen:
        """What the golden model alone makes of a case's first packet."""
        traffic, memory = self._run(case)
        frame = None
        if len(case.programs) == len(case.frames) == 1 and vector.ends_once(case.programs[0]):
            lines = case.programs[0].lines
            passes = Line(make("mov32_imm", dst=0, imm=XdpAction.XDP_PASS))
            sent = replace(case, programs=(Program((*lines[:-1], passes, lines[-1])),))
            frame = self._run(sent)[0].packets[0].data
        return vector.Seen(traffic.packets[0], traffic.retirements or [], memory, frame)

    def _run(self, case: Case) -> tuple[Traffic, bytes]:
        with BareNic(GoldenTransport(self._options)) as nic:
            prepare(nic, describe_maps(nic, self._map_types), case)
            traffic = nic.run(case.frames, case.pacing, retirements=True)
            return traffic, world.linked(nic.memory(0, world.MEMORY_BYTES), ())

    def close(self) -> None:
        if self._pair:
            self._pair.close()
        self._pair = None
