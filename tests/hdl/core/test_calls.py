"""What the core says to the map engine, and what it does with its answers (mapinterfaces.EngineWord, EngineAnswer). The
engine's answers are given here, so that every one of them can be."""

from itertools import pairwise

import pytest

from bpfnic.hdl.mapinterfaces import MapCall
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.helpers import BY_NAME
from tests.hdl.core.bench import Result, Says, Scenario, Word

FRAME = bytes(range(1, 101))
MEMORY = bytes(range(256)) * 16
ARGUMENTS = (0x2000_0010, 0x8765_4321_0000_0002, 0x3333_0000_0003, -4, 0xFFFF_0000_0005)
PLACE = 0x207  # the engine says where to copy to or from: its offset in map memory, of any alignment
BEHIND = 0x700  # what map memory is asked for by a program


def call(name: str, *more: str) -> str:
    """Calls a helper, r1 to r5 are ARGUMENTS but where `more` says otherwise, and r0 is kept."""
    lines = [f"r{number} = {value} ll" for number, value in enumerate(ARGUMENTS, 1)]
    return "\n".join([*lines, *more, f"call {BY_NAME[name].number}", "r9 = r0"])


def word(kind: MapCall, register: int | None, *, flags: int = 0, last: int = 1, handle: int = 1) -> Word:
    """A word that has what is in a register (None: anything)."""
    data = -1 if register is None else ARGUMENTS[register - 1] % (1 << 64)
    return Word(kind, flags, last, ARGUMENTS[handle - 1] % (1 << 64), data)


def same(words: list[Word], expected: list[Word]) -> bool:
    pairs = zip(words, expected, strict=True)
    return all(one == other or (other.data == -1 and one._replace(data=-1) == other) for one, other in pairs)


def run(core, program: str, answers: dict[MapCall, Says], **more) -> Result:
    """On all threads; every packet says the same."""
    code = assemble(f"r6 = r1\nr7 = r10\nr8 = *(u32 *)(r1 + 0)\n{program}\nr0 = r9\nexit")
    scenario = Scenario({0: code}, [(0, FRAME)] * 40, map=MEMORY, answers=answers, **more)
    result = core.run(scenario)
    for one, other in pairwise(result.runs):
        assert (one.words, one.verdict, one.cause, one.frame) == (other.words, other.verdict, other.cause, other.frame)
    return result


WORDS = {
    "map_push_elem": [word(MapCall.PUSH, 3, flags=1)],
    "map_pop_elem": [word(MapCall.POP, None)],
    "map_peek_elem": [word(MapCall.PEEK, None)],
    "ringbuf_reserve": [word(MapCall.RESERVE, 3, flags=1, last=0), word(MapCall.RESERVE, 2)],
    "ringbuf_output": [word(MapCall.OUTPUT, 4, flags=1, last=0), word(MapCall.OUTPUT, 3)],
    "ringbuf_submit": [word(MapCall.SUBMIT, 2, flags=1)],
    "ringbuf_discard": [word(MapCall.DISCARD, 2, flags=1)],
    "ringbuf_query": [word(MapCall.QUERY, 2)],
    "perf_event_output": [word(MapCall.EVENT, 3, flags=1, last=0, handle=2), word(MapCall.EVENT, 5, last=0, handle=2),
                          Word(MapCall.EVENT, 0, 1, ARGUMENTS[1] % (1 << 64), 0)],
}  # fmt: skip
"""What each helper sends. An event's last word is its packet's data and data_end."""
HEADROOM = addresses.PACKET + addresses.HEADROOM
BOUNDS = HEADROOM | HEADROOM + len(FRAME) << 32
WORDS["perf_event_output"][2] = WORDS["perf_event_output"][2]._replace(data=BOUNDS)


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("by_register", [False, True])
def test_words_and_a_result(core, name, by_register):
    kind = WORDS[name][0].call
    program = call(name)
    if by_register:
        program = program.replace(f"call {BY_NAME[name].number}", f"r0 = {BY_NAME[name].number}\ncallx r0")
    result = run(core, program, {kind: Says(-77)})
    assert same(result.runs[0].words, WORDS[name])
    assert {each.verdict for each in result.runs} == {-77 % (1 << 32)}
    assert result.retired == 40 * (len(program.splitlines()) + 5)
    assert result.map == MEMORY


@pytest.mark.parametrize("name", WORDS)
def test_no_such_map(core, name):
    result = run(core, call(name), {WORDS[name][0].call: Says(trap=1)})
    assert {each.cause for each in result.runs} == {Cause.MAP}
    assert result.retired == 40 * 8


COPIES = {"map_push_elem": 2, "ringbuf_output": 2, "perf_event_output": 4}  # from which register
SOURCES = {"r7 + -24": None, "r8 + 3": FRAME[3:], "map": MEMORY[BEHIND + 5 :]}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [1, 7, 8, 17])
def test_copies_into_map_memory(core, name, source, size):
    pointer = f"r{COPIES[name]}"
    begins = [f"{pointer} = {source[:2]}", f"{pointer} += {source[5:]}"]
    stack = [f"r9 = {0x1111111111111111 * number} ll\n*(u64 *)(r10 - {32 - 8 * number}) = r9" for number in (1, 2, 3)]
    content = b"".join(bytes([17 * number]) * 8 for number in (1, 2, 3))
    if source == "map":
        begins = [f"{pointer} = {addresses.MAP_VALUES + BEHIND + 5} ll"]
    if source[:2] == "r7":
        begins += stack
    if name == "perf_event_output":
        begins += ["r3 = 5"]  # and no bytes of the packet
    kind = WORDS[name][0].call
    answers = {kind: Says(addresses.MAP_VALUES + PLACE, copy=1, insert=1, size=size), MapCall.INSERT: Says(-9)}
    result = run(core, call(name, *begins), answers, threads=1)
    assert [each.call for each in result.runs[0].words] == [kind] * len(WORDS[name]) + [MapCall.INSERT]
    assert result.runs[0].words[-1].handle == WORDS[name][0].handle
    assert {(each.verdict, each.cause) for each in result.runs} == {(-9 % (1 << 32), Cause.NONE)}
    copied = (SOURCES[source] or content)[:size]
    assert result.map == MEMORY[:PLACE] + copied + MEMORY[PLACE + size :]


@pytest.mark.parametrize("of_packet", [0, 1, 8, 9, 100])
@pytest.mark.parametrize("size", [0, 5, 16])
def test_an_event_has_bytes_of_the_packet(core, size, of_packet):
    """They are those from data on, wherever that is by now."""
    program = call("xdp_adjust_head", "r1 = r6", "r2 = -6") + "\n" + call(
        "perf_event_output", "r4 = 0x10000700 ll", f"r3 = {of_packet << 32 | 7} ll")  # fmt: skip
    answers = {MapCall.EVENT: Says(addresses.MAP_VALUES + PLACE, copy=1, insert=1, size=size), MapCall.INSERT: Says(0)}
    result = run(core, program, answers)
    moved = result.runs[0].frame
    assert moved[6:] == FRAME
    copied = MEMORY[BEHIND : BEHIND + size] + moved[:of_packet]
    assert result.map == MEMORY[:PLACE] + copied + MEMORY[PLACE + len(copied) :]
    words = result.runs[0].words
    assert words[2].data == BOUNDS - 6 and [each.call for each in words[3:]] == [MapCall.INSERT]


TARGETS = ["r10 - 40", "r10 - 39", "r10 - 34", "packet + 9", "packet + 2", "map"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 13, 24])
@pytest.mark.parametrize("name", ["map_pop_elem", "map_peek_elem"])
def test_copies_out_of_map_memory(core, name, size, target):
    """Into every window, at any alignment; its neighbours stay."""
    base, _, offset = target.partition(" ")
    start = {"r10": "r2 = r10", "packet": "r2 = r8", "map": f"r2 = {addresses.MAP_VALUES + BEHIND} ll"}[base]
    offset = int(offset.replace(" ", "") or 3)
    around = [f"r9 = -1\n*(u64 *)(r10 - {8 * number}) = r9" for number in range(1, 7)]
    sums = "\n".join(f"r0 = *(u64 *)(r10 - {8 * number})\n*(u64 *)(r8 + {8 * number}) = r0" for number in range(1, 7))
    if base != "r10":
        sums = ""
    program = f"{call(name, *around, start, f'r2 += {offset}')}\n{sums}"
    kind = WORDS[name][0].call
    answers = {kind: Says(addresses.MAP_VALUES + PLACE, copy=1, insert=1, size=size), MapCall.RELEASE: Says(-2)}
    result = run(core, program, answers)
    words = result.runs[0].words
    assert [(each.call, each.last) for each in words] == [(kind, 1), (MapCall.RELEASE, 1)]
    assert words[1].handle == words[0].handle
    value, memory, frame = MEMORY[PLACE : PLACE + size], MEMORY, FRAME
    if base == "map":
        at = BEHIND + offset
        memory = MEMORY[:at] + value + MEMORY[at + size :]
    elif base == "packet":
        frame = FRAME[:offset] + value + FRAME[offset + size :]
    else:
        stack = bytearray(b"\xff" * 48)
        stack[48 + offset : 48 + offset + size] = value
        words = [stack[start : start + 8] for start in range(0, 48, 8)]
        frame = FRAME[:8] + b"".join(reversed(words)) + FRAME[56:]
    assert (result.map, result.runs[0].frame) == (memory, frame)
    assert {(each.verdict, each.cause) for each in result.runs} == {(-2 % (1 << 32), Cause.NONE)}


@pytest.mark.parametrize("name, register", [("map_pop_elem", 2), *COPIES.items()])
def test_copies_from_and_to_nowhere_trap(core, name, register):
    """Behind the first 8 bytes of the packet's last 12."""
    program = call(name, "r3 = 0", f"r{register} = r8", f"r{register} += {len(FRAME) - 12}")
    answers = {WORDS[name][0].call: Says(addresses.MAP_VALUES + PLACE, copy=1, insert=1, size=13)}
    result = run(core, program, answers)
    assert {each.cause for each in result.runs} == {Cause.MEMORY_ACCESS}


@pytest.mark.parametrize("offset", [0, 7])
def test_a_look_up_finds_a_map(core, offset):
    """Its handle is a value of the outer map; it may cross a row. A look-up that finds nothing says so itself."""
    lookup = "r1 = 0x20000010 ll\nr2 = r10\nr2 += -8\ncall 1\nr9 = r0\nr9 += 1"
    answers = {MapCall.LOOKUP: Says(addresses.MAP_VALUES + PLACE + offset, copy=1, size=4)}
    result = run(core, lookup, answers)
    found = int.from_bytes(MEMORY[PLACE + offset :][:4], "little")
    assert {(each.verdict, each.cause) for each in result.runs} == {(found + 1, Cause.NONE)}
    assert result.retired == 40 * 11
    assert result.runs[0].retired[6]["value"] == found
    assert {each.verdict for each in run(core, lookup, {MapCall.LOOKUP: Says()}).runs} == {1}
