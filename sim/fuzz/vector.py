"""A case as a vector file, of the format that tests/vectors.py describes.

What must come out is what the golden model says: whoever keeps the file has looked at it with the RFC in hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from bpfnic.host.device import PacketResult, Retirement
from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.compare import Case
from bpfnic.sim.fuzz.program import Program, listing
from bpfnic.spec import addresses, isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Operation

DEFAULT_FRAME = bytes(range(64))
DEFAULT_BUDGET = 1000


def inexpressible(case: Case) -> str | None:
    """Why a case is no vector, or None where it is one."""
    if len(case.programs) != 1 or len(case.frames) != 1:
        return f"it takes {len(case.frames)} packets"
    if case.first:
        return "its program stands elsewhere than at the store's start"
    return None


@dataclass(frozen=True)
class Seen:
    """What the golden model did with a case: the packet's result, its retired instructions, map memory afterwards; and
    the frame at the program's end, where the program ends once, by its last instruction."""

    result: PacketResult
    retired: Sequence[Retirement]
    memory: bytes
    frame: bytes | None


def text(case: Case, name: str, seen: Seen, comments: Sequence[str] = ()) -> str:
    """The file."""
    program, frame = case.programs[0], case.frames[0].data
    reached = [one.address for one in seen.retired if one.address is not None]
    extent = world.MEMORY_BYTES if calls_maps(program) else _extent(reached)
    given, expected = {}, {}
    if frame != DEFAULT_FRAME:
        given["packet"] = frame.hex()
    if extent:
        given["map"] = case.memory[:extent].hex()
    if case.budget != DEFAULT_BUDGET:
        given["budget"] = str(case.budget)
    if calls_maps(program):
        given["maps"] = "fuzz"
    if not _calls(program):  # of a callee, r6 to r9 are others
        written = {one.register: one.value for one in seen.retired if one.register is not None}
        expected = {f"r{number}": f"{value:#x}" for number, value in sorted(written.items())}
    if seen.frame is not None and (calls_maps(program) or any(_in_packet(address) for address in reached)):
        expected["packet"] = seen.frame.hex()
    if extent:
        expected["map"] = seen.memory[:extent].hex()
    expected["trap"] = "-" if seen.result.verdict is not None else seen.result.cause.name
    if seen.result.verdict is None:
        expected["pc"] = str(seen.retired[-1].next_pc if seen.retired else 0)
    columns = [*given, ":", *expected], [*given.values(), ":", *expected.values()]
    widths = [max(map(len, pair)) for pair in zip(*columns, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in columns]
    body = [*listing(program.instructions()), "---", *rows]
    head = [*(f"# {comment}" for comment in comments), "", f"test {name} -"]
    return "\n".join([*head, *(f"    {line}" for line in body), ""])


def _in_packet(address: int) -> bool:
    return addresses.PACKET <= address < addresses.MAP_VALUES


def _extent(reached: Sequence[int]) -> int:
    """Bytes of map memory up to the last that is at one of these addresses, of those that are compared; whole rows."""
    offsets = [address - addresses.MAP_VALUES for address in reached]
    last = max((offset + 8 for offset in offsets if 0 <= offset < world.MEMORY_BYTES), default=0)
    return -(-last // addresses.ROW_BYTES) * addresses.ROW_BYTES


def _operations(program: Program) -> list[Operation]:
    found = []
    for instruction in program.instructions():
        try:
            found.append(isa.find(instruction).operation)
        except BpfnicError:
            continue
    return found


def _calls(program: Program) -> bool:
    return bool({Operation.CALL_LOCAL, Operation.CALLX, Operation.CALL_FIRMWARE} & set(_operations(program)))


def ends_once(program: Program) -> bool:
    """Whether the last instruction is its only exit."""
    operations = _operations(program)
    return operations[-1:] == [Operation.EXIT] and operations.count(Operation.EXIT) == 1


def calls_maps(program: Program) -> bool:
    """Whether a program may ask for a map: then the maps of sim/fuzz/world.py have to stand."""
    return bool({Operation.CALL_HELPER, Operation.CALLX} & set(_operations(program)))
