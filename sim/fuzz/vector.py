"""A case as a vector file, of the format that tests/vectors.py describes.

What must come out is what the golden model says: whoever keeps the file has looked at it with the RFC in hand."""

from collections.abc import Sequence

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


def text(case: Case, name: str, result: PacketResult, retired: Sequence[Retirement], memory: bytes,
         comments: Sequence[str] = ()) -> str:  # fmt: skip
    """The file. `result`, `retired` and `memory` (afterwards): what the golden model did."""
    program, frame = case.programs[0], case.frames[0].data
    given, expected = {}, {}
    if frame != DEFAULT_FRAME:
        given["packet"] = frame.hex()
    maps = calls_maps(program)
    extent = world.MEMORY_BYTES if maps else _extent(retired)
    if extent:
        given["map"] = case.memory[:extent].hex()
    if case.budget != DEFAULT_BUDGET:
        given["budget"] = str(case.budget)
    if maps:
        given["maps"] = "fuzz"
    if not _calls(program):  # of a callee, r6 to r9 are others
        written = {one.register: one.value for one in retired if one.register is not None}
        expected = {f"r{number}": f"{value:#x}" for number, value in sorted(written.items())}
    if result.verdict is None:
        expected["trap"] = result.cause.name
        expected["pc"] = str(retired[-1].next_pc if retired else 0)
    elif result.data is not None and result.data != frame:
        expected["packet"] = result.data.hex()
    if memory[:extent] != case.memory[:extent]:
        expected["map"] = memory[:extent].hex()
    columns = [*given, ":", *expected], [*given.values(), ":", *expected.values()]
    widths = [max(map(len, pair)) for pair in zip(*columns, strict=True)]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in columns]
    body = [*listing(program.instructions()), "---", *rows]
    head = [*(f"# {comment}" for comment in comments), "", f"test {name} -"]
    return "\n".join([*head, *(f"    {line}" for line in body), ""])


def _extent(retired: Sequence[Retirement]) -> int:
    """Bytes of map memory up to the last that instructions reached, of those that are compared; whole rows."""
    reached = [one.address - addresses.MAP_VALUES for one in retired if one.address is not None]
    last = max((offset + 8 for offset in reached if 0 <= offset < world.MEMORY_BYTES), default=0)
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
    return bool({Operation.CALL_LOCAL, Operation.CALLX} & set(_operations(program)))


def calls_maps(program: Program) -> bool:
    """Whether a program may ask for a map: then the maps of sim/fuzz/world.py have to stand."""
    return bool({Operation.CALL_HELPER, Operation.CALLX} & set(_operations(program)))
