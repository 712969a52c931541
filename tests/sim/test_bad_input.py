"""What no loader would let through and no MAC would send, on a whole NIC: each program that traps ends its own packet,
with its cause counted, and the next packet finds nothing of it. What must come out is what the RFC and spec say."""

from itertools import groupby

import pytest

from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec import addresses, engine, isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import SLOT_BYTES, Instruction, encode
from bpfnic.spec.isa import Legal, Operation
from bpfnic.spec.programs import XdpAction
from bpfnic.spec.registers import ENTRY_VALID
from tests.encodings import TAKEN, illegal, instance
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench, agreement

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

FRAME = bytes(range(64))
GOOD = 256  # slot of a program that passes its frame
MAP_BYTES = 128 * 1024
HOST = 2
JUMPING = {*TAKEN, Operation.JA, Operation.CALL_LOCAL, Operation.MAY_GOTO}


@pytest.fixture(scope="module", params=["golden", "rtl-1x16"])
def bench(request):
    backend, _, size = request.param.partition("-")
    with Bench(backend, **TWO_CORES if size == "2x8" else ONE_CORE) as bench:
        bench.load(assemble("r0 = 2\nexit"), GOOD)
        bench.array(0, 0, 4, 8, 8)
        yield bench
        bench.counters()  # balance


of_every_size = pytest.mark.parametrize("bench", ["golden", "rtl-1x16", "rtl-2x8"], indirect=True)


def aborted(bench: Bench) -> list[int]:
    """How many packets of port 0 were, and how many for each cause."""
    bench.write("SNAPSHOT", 0)
    return [bench.read("ABORTED"), *(bench.read("CAUSES", cause) for cause in range(16))]


def ends(bench: Bench, code: bytes, cause: Cause, budget: int = 1000) -> None:
    """The program ends a packet with that cause, counted once; packets before, beside and behind it pass."""
    bench.load(code + bytes(SLOT_BYTES))
    bench.attach(0, [0])
    bench.write("ENTRY", ENTRY_VALID | GOOD if budget >= 2 else 0, 1)  # it takes 2 instructions; without, frames pass
    bench.write("BUDGET", budget)
    before = aborted(bench)
    traffic = bench.run([Arrival(1, FRAME), Arrival(0, FRAME), Arrival(1, FRAME)])
    after = aborted(bench)
    good, bad, other = traffic.packets
    assert (bad.action, bad.cause, bad.egress) == (XdpAction.XDP_ABORTED, cause, None)
    assert (bad.verdict is None) == (cause not in (Cause.VERDICT, Cause.REDIRECT, Cause.PROGRAM))
    assert [(packet.action, packet.data) for packet in (good, other)] == [(XdpAction.XDP_PASS, FRAME)] * 2
    counted = [1, *(int(number == cause) for number in range(16))]
    assert [b - a for a, b in zip(before, after, strict=True)] == counted


# -- instructions --


def test_opcodes_that_do_not_exist(bench: Bench) -> None:
    for opcode in sorted(set(range(256)) - set(isa.BY_OPCODE)):
        ends(bench, bytes([opcode, 0, 0, 0, 0, 0, 0, 0]), Cause.ILLEGAL_INSTRUCTION)


def test_reserved_fields(bench: Bench) -> None:
    """Each field of each row with what it forbids: the lowest value, the highest, and one between."""
    for (name, field), cases in groupby(illegal(), key=lambda case: case[:2]):
        values = [instruction for _, _, instruction in cases]
        for instruction in dict.fromkeys([values[0], values[len(values) // 2], values[-1]]):
            try:
                ends(bench, encode([instruction]), Cause.ILLEGAL_INSTRUCTION)
            except AssertionError as error:
                raise AssertionError(f"{name} with {field} {getattr(instruction, field)}: {error}") from None


def test_second_half_of_a_wide_instruction(bench: Bench) -> None:
    legal = assemble("r1 = 5 ll\nr0 = 2\nexit")
    for place in range(8, 12):  # opcode, registers, offset
        code = bytearray(legal)
        code[place] = 1
        ends(bench, bytes(code), Cause.ILLEGAL_INSTRUCTION)


def test_every_jump_into_a_wide_instruction(bench: Bench) -> None:
    """Its second half is opcode 0, whatever stands in the rest of it."""
    jumps = [row for row in isa.ROWS if Legal.BRANCH in (row.offset, row.imm) and row.operation in JUMPING]
    assert len(jumps) == 2 * 2 * 11 + 4
    for row in jumps:
        left, right = TAKEN.get(row.operation, (0, 0))
        operands = {"offset" if row.offset is Legal.BRANCH else "imm": 1}
        if row.operation in TAKEN:
            operands |= {"dst": 1} | ({"src": 2} if row.register_operand else {"imm": right})
        code = [*[Instruction(0xB7, 1, imm=left), Instruction(0xB7, 2, imm=right)] * 2, instance(row, **operands),
                Instruction(0x18, 3, imm=5, next_imm=0x95), Instruction(0x95)]  # fmt: skip
        budget = 6 if row.operation is Operation.MAY_GOTO else 1000  # of 6, 2 are left after four: less than half
        try:
            ends(bench, encode(code), Cause.ILLEGAL_INSTRUCTION, budget)
        except AssertionError as error:
            raise AssertionError(f"{row.name}: {error}") from None


def test_rows_that_this_engine_lacks(bench: Bench) -> None:
    """Legal, and refused as such: UNSUPPORTED, or what an unresolved reference and a kernel function are."""
    lacking = [row for row in isa.ROWS if row.group not in engine.GROUPS]
    for row in lacking:
        ends(bench, encode([instance(row)]), Cause.UNSUPPORTED)
    for row in isa.ROWS:
        if row.operation is Operation.LDDW_REFERENCE:
            ends(bench, encode([instance(row)]), Cause.ILLEGAL_INSTRUCTION)
        if row.operation is Operation.CALL_BTF:
            ends(bench, encode([instance(row)]), Cause.HELPER)


def test_helpers_that_this_engine_lacks(bench: Bench) -> None:
    for number in sorted({*range(256), 256, 257, 65537, 1 << 30, -1} - bench.device.capabilities.helpers):
        ends(bench, encode([Instruction(0x85, imm=number)]), Cause.HELPER)


# -- where a program may not go --


def test_the_program_counter_leaves_the_store(bench: Bench) -> None:
    slots = bench.device.capabilities.program_slots
    for text in ("goto -2", "goto -0x8000", "goto +0x7fff", f"gotol +{slots - 1}", "gotol -2", "gotol +0x7fffffff",
                 "gotol -0x80000000", "if r10 != 0 goto -2", "call pc-2", f"call pc+{slots - 1}"):  # fmt: skip
        ends(bench, assemble(text), Cause.PROGRAM_RANGE)
    last = slots - 1
    for code in (assemble("r0 = 2"), assemble("r0 = 2 ll")[:SLOT_BYTES]):  # off the end, and half behind it
        bench.load(code, last)
        ends(bench, assemble(f"gotol +{last - 1}"), Cause.PROGRAM_RANGE)
    bench.load(assemble("exit"), last)
    bench.load(assemble(f"r0 = 2\ngotol +{last - 2}"))
    assert bench.run([Arrival(0, FRAME)]).packets[0].action is XdpAction.XDP_PASS


def test_budget(bench: Bench) -> None:
    ends(bench, assemble("goto -1"), Cause.BUDGET)
    ends(bench, assemble("r0 = 2\nexit"), Cause.BUDGET, budget=1)
    ends(bench, assemble("r0 = 2\nexit"), Cause.BUDGET, budget=0)
    ends(bench, assemble("r0 = 7\nexit"), Cause.VERDICT, budget=2)  # just enough
    lookup = f"*(u32 *)(r10 - 4) = 0\nr1 = {ARRAY} ll\nr2 = r10\nr2 += -4\ncall 1\nr0 = 7\nexit"
    ends(bench, assemble(lookup), Cause.BUDGET, budget=4)  # a helper counts as one instruction
    ends(bench, assemble(lookup), Cause.BUDGET, budget=6)
    ends(bench, assemble(lookup), Cause.VERDICT, budget=7)


def test_calls_too_deep(bench: Bench) -> None:
    ends(bench, assemble("call pc-1 frame 16"), Cause.CALL_DEPTH)
    nine = "\n".join(["call pc+1 frame 16", "exit"] * 8) + "\nr0 = 7\nexit"
    ends(bench, assemble(nine), Cause.CALL_DEPTH)
    eight = "\n".join(["call pc+1 frame 16", "exit"] * 7) + "\nr0 = 7\nexit"
    ends(bench, assemble(eight), Cause.VERDICT)
    for frames, cause in (((256, 256), Cause.VERDICT), ((256, 272), Cause.CALL_DEPTH), ((512, 16), Cause.CALL_DEPTH),
                          ((512, 512), Cause.CALL_DEPTH), ((512,), Cause.VERDICT)):  # fmt: skip
        text = "".join(f"call pc+1 frame {frame}\nexit\n" for frame in frames)
        ends(bench, assemble(text + "r0 = 7\nexit"), cause)


# -- what it may not touch --

ARRAY = f"{addresses.map_handle(0):#x}"
PACKET = addresses.PACKET + addresses.HEADROOM
WINDOWS = {  # first address and the one behind the last, natural alignment asked for, writable
    "context": (addresses.CONTEXT, addresses.CONTEXT + addresses.CONTEXT_BYTES, True, False),
    "stack": (addresses.STACK, addresses.STACK_TOP, True, True),
    "packet": (PACKET, PACKET + len(FRAME), False, True),
    "map": (addresses.MAP_VALUES, addresses.MAP_VALUES + MAP_BYTES, False, True),
}
ACCESSES = [row for row in isa.ROWS if row.operation in (Operation.LDX, Operation.LDXS, Operation.ST, Operation.STX)]


def expected(row: isa.Row, address: int, window: tuple[int, int, bool, bool]) -> Cause:
    first, behind, aligned, writable = window
    size = row.width // 8
    inside = first <= address and address + size <= behind
    if not inside or (row.operation in (Operation.ST, Operation.STX) and not writable):
        return Cause.MEMORY_ACCESS
    return Cause.MISALIGNED if aligned and address % size else Cause.VERDICT


@pytest.mark.parametrize("name", WINDOWS)
def test_both_ends_of_each_window(bench: Bench, name: str) -> None:
    """Each size of load and store at every address around both ends."""
    window = WINDOWS[name]
    for row in ACCESSES:
        size = row.width // 8
        for end in window[:2]:
            for address in range(end - size - 1, end + 2):
                base, offset = (address - 0x7FFF, 0x7FFF) if address % 2 else (address + 0x8000, -0x8000)
                fields = {"src" if row.instruction_class is isa.Class.LDX else "dst": 4, "offset": offset}
                code = encode([Instruction(0x18, 4, imm=base, next_imm=0), instance(row, **fields),
                               Instruction(0xB7, 0, imm=7), Instruction(0x95)])  # fmt: skip
                try:
                    ends(bench, code, expected(row, address, window))
                except AssertionError as error:
                    raise AssertionError(f"{row.name} at {address:#x}: {error}") from None


@pytest.mark.parametrize("high", [1, 0x80000000, 0xFFFFFFFF])
def test_addresses_have_32_bits(bench: Bench, high: int) -> None:
    for first, _, _, _ in WINDOWS.values():
        text = f"r4 = {high << 32 | first:#x} ll\nr0 = *(u8 *)(r4 + 0)\nr0 = 7\nexit"
        ends(bench, assemble(text), Cause.MEMORY_ACCESS)


def test_atomics_are_aligned_and_may_write(bench: Bench) -> None:
    """So are acquires and releases; what only loads may read the context."""
    rows = [row for row in isa.ROWS if row.instruction_class is isa.Class.STX and row.opcode & 0xE0 == 0xC0]
    assert len(rows) == 20 + 8
    for row in rows:
        size, loads = row.width // 8, row.operation is Operation.LOAD_ACQUIRE
        off = Cause.MISALIGNED if size > 1 else Cause.VERDICT
        registers = {"dst": 5, "src": 4} if loads else {"dst": 4, "src": 5}
        for address, cause in (
            (addresses.MAP_VALUES, Cause.VERDICT),
            (addresses.MAP_VALUES + MAP_BYTES - size, Cause.VERDICT),
            (addresses.MAP_VALUES + 1, off),
            (addresses.MAP_VALUES + size // 2, off),
            (addresses.MAP_VALUES - size, Cause.MEMORY_ACCESS),
            (addresses.MAP_VALUES + MAP_BYTES, Cause.MEMORY_ACCESS),
            (addresses.MAP_VALUES + MAP_BYTES - size + 1, Cause.MEMORY_ACCESS),
            (addresses.STACK, Cause.VERDICT),
            (addresses.STACK_TOP - size, Cause.VERDICT),
            (addresses.STACK_TOP - size + 1, Cause.MEMORY_ACCESS),
            (addresses.STACK + 1, off),
            (PACKET, Cause.VERDICT),
            (PACKET + len(FRAME) - size, Cause.VERDICT),
            (PACKET + len(FRAME) - size + 1, Cause.MEMORY_ACCESS),
            (PACKET + 1, off),
            (addresses.CONTEXT, Cause.VERDICT if loads else Cause.MEMORY_ACCESS),
            (addresses.map_handle(0), Cause.MEMORY_ACCESS),
        ):
            code = [Instruction(0x18, 4, imm=address, next_imm=0), instance(row, **registers),
                    Instruction(0xB7, 0, imm=7), Instruction(0x95)]  # fmt: skip
            try:
                ends(bench, encode(code), cause)
            except AssertionError as error:
                raise AssertionError(f"{row.name} at {address:#x}: {error}") from None


def test_what_is_no_map(bench: Bench) -> None:
    maps = bench.device.capabilities.maps
    for handle in (0, addresses.MAP_VALUES, addresses.map_handle(1), addresses.map_handle(0) + 1,
                   addresses.map_handle(0) + 8, addresses.map_handle(0) - 16, addresses.map_handle(maps),
                   addresses.map_handle(maps - 1), 1 << 32 | addresses.map_handle(0), addresses.map_handle(0, 3),
                   addresses.map_handle(0, 5), addresses.map_handle(0, 64)):  # fmt: skip
        for helper in (1, 2, 3):
            text = f"r1 = {handle:#x} ll\n*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr3 = r2\nr4 = 0\ncall {helper}"
            ends(bench, assemble(text + "\nr0 = 7\nexit"), Cause.MAP)


@pytest.mark.parametrize("key", [addresses.MAP_VALUES, addresses.MAP_VALUES + 14], ids=["in a row", "across two"])
def test_a_key_in_map_memory_is_read_before_a_wrong_handle_is_found(key: int) -> None:
    """Found by random programs: the reference read no key then, and the hardware's access had no counterpart."""
    for helper in (1, 2, 3):
        text = f"r1 = 5\nr2 = {key:#x} ll\nr3 = r10\nr3 += -8\nr4 = 0\ncall {helper}\nr0 = 7\nexit"
        with Bench("rtl", **ONE_CORE) as device, Bench("golden", **ONE_CORE) as reference:
            for each in (device, reference):
                each.load(assemble(text))
                each.attach(0)
            traffic, difference, parting = agreement(device, reference, [Arrival(0, bytes(64))])
            assert not difference and not parting, f"{difference} {parting}"
            assert traffic.packets[0].cause is Cause.MAP


@pytest.mark.parametrize("offset", range(25))
def test_a_helper_reads_the_context_at_any_alignment(offset: int) -> None:
    """Linux lets no helper take a pointer to the context; here it is read as it is, across its words too."""
    start = addresses.CONTEXT + offset
    text = f"""
        r1 = {addresses.map_handle(0)} ll
        *(u32 *)(r10 - 4) = 0
        r2 = r10
        r2 += -4
        r3 = {start:#x}
        r4 = 0
        call 2
        r0 = 3
        exit
    """
    with Bench("rtl", **ONE_CORE) as device, Bench("golden", **ONE_CORE) as reference:
        for each in (device, reference):
            each.load(assemble(text))
            each.attach(0)
            each.array(0, 0, 1, 8, 8)
        _, difference, parting = agreement(device, reference, [Arrival(0, bytes(64))])
        assert not difference and not parting, f"{difference} {parting}"


def test_what_is_no_key_and_no_value(bench: Bench) -> None:
    """Arguments of map helpers outside every window; where they are inside, any alignment does."""
    for pointer, cause in ((0, Cause.MEMORY_ACCESS), (addresses.STACK_TOP - 3, Cause.MEMORY_ACCESS),
                           (addresses.STACK_TOP - 4, Cause.VERDICT), (addresses.STACK - 1, Cause.MEMORY_ACCESS),
                           (addresses.STACK + 5, Cause.VERDICT), (PACKET + 61, Cause.MEMORY_ACCESS),
                           (PACKET + 59, Cause.VERDICT), (PACKET - 1, Cause.MEMORY_ACCESS),
                           (addresses.MAP_VALUES + 13, Cause.VERDICT), (addresses.MAP_VALUES - 1, Cause.MEMORY_ACCESS),
                           (addresses.MAP_VALUES + MAP_BYTES - 3, Cause.MEMORY_ACCESS),
                           (addresses.CONTEXT + 3, Cause.VERDICT), (addresses.CONTEXT + 61, Cause.MEMORY_ACCESS),
                           (1 << 32 | addresses.STACK, Cause.MEMORY_ACCESS)):  # fmt: skip
        for helper in (1, 2, 3):
            text = f"r1 = {ARRAY} ll\nr2 = {pointer:#x} ll\nr3 = r10\nr3 += -8\nr4 = 0\ncall {helper}"
            ends(bench, assemble(text + "\nr0 = 7\nexit"), cause)
    for pointer, cause in ((addresses.STACK_TOP - 7, Cause.MEMORY_ACCESS), (addresses.STACK_TOP - 8, Cause.VERDICT),
                           (addresses.STACK_TOP - 13, Cause.VERDICT), (PACKET + 57, Cause.MEMORY_ACCESS),
                           (PACKET + 55, Cause.VERDICT), (0, Cause.MEMORY_ACCESS),
                           (addresses.MAP_VALUES + 9, Cause.VERDICT), (addresses.CONTEXT + 1, Cause.VERDICT),
                           (addresses.CONTEXT + 57, Cause.MEMORY_ACCESS)):  # fmt: skip
        text = f"r1 = {ARRAY} ll\n*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr3 = {pointer:#x} ll\nr4 = 0\ncall 2"
        ends(bench, assemble(text + "\nr0 = 7\nexit"), cause)


@pytest.mark.parametrize(
    "text",
    [
        "call 9",
        "r0 = *(u8 *)(r0 + 0)",
        "r1 = 5\ncall 1",  # no map
        f"r1 = {ARRAY} ll\nr2 = 0\ncall 1",  # no key
        f"r1 = {ARRAY} ll\nr2 = 0x20000 ll\nr3 = 0\nr4 = 0\ncall 2",  # no value, found after the key was sent
        f"r1 = {ARRAY} ll\nr2 = 0x1000000d ll\nr3 = 0\nr4 = 0\ncall 2",
    ],
)
def test_what_traps_does_not_retire(bench: Bench, text: str) -> None:
    bench.load(assemble(text + "\nexit"))
    bench.attach(0)
    bench.set_memory(12, bytes(8))  # the last one's key
    before = bench.counters()["RETIRED"]
    traffic = bench.run([Arrival(0, FRAME)], retirements=True)
    (packet,) = traffic.packets
    assert packet.action is XdpAction.XDP_ABORTED
    lines = len(text.splitlines()) - 1
    assert lines == packet.instructions == len(traffic.retirements) == bench.counters()["RETIRED"] - before


def test_verdicts(bench: Bench) -> None:
    for verdict in (5, 6, 0xFF, 1 << 31, -1):
        ends(bench, assemble(f"w0 = {verdict}\nexit"), Cause.VERDICT)
    ends(bench, assemble("r0 = 0\nexit"), Cause.PROGRAM)
    ends(bench, assemble("r0 = 4\nexit"), Cause.REDIRECT)
    for ifindex, flags, cause in ((0, 0, Cause.REDIRECT), (9, 0, Cause.REDIRECT), (-1, 0, Cause.REDIRECT),
                                  (1, 1, Cause.PROGRAM), (1, -1, Cause.PROGRAM)):  # fmt: skip
        ends(bench, assemble(f"r1 = {ifindex}\nr2 = {flags}\ncall 23\nexit"), cause)
    # The upper half of r0 and of the ifindex mean nothing.
    for text in ("r0 = 0x100000002 ll\nexit", "r1 = 0x700000002 ll\nr2 = 0\ncall 23\nexit"):
        bench.load(assemble(text))
        bench.attach(0)
        assert bench.run([Arrival(0, FRAME)]).packets[0].egress == (HOST if "call" not in text else 1)


# -- nothing of one packet shows in another --

SECRET = 0x5EC2E75EC2E75EC2
LEAVE_SECRETS = "\n".join(
    [f"r{number} = {SECRET:#x} ll" for number in (0, 2, 3, 4, 5, 6, 7, 8, 9)]
    + [f"*(u64 *)(r10 - {at}) = r3" for at in range(8, 513, 8)]
    + ["r6 = r1", "r2 = -216", "call 44", "r1 = *(u32 *)(r6 + 0)", "r3 = r7"]  # all of the headroom
    + [f"*(u64 *)(r1 + {at}) = r3" for at in range(0, 216, 8)]
    + ["r1 = r6", "r2 = 500", "call 65", "r1 = *(u32 *)(r6 + 0)"]  # and tailroom
    + [f"*(u64 *)(r1 + {at}) = r7" for at in range(216, 776, 8)]
    + [f"r{number} = {SECRET:#x} ll" for number in (0, 1, 2, 3, 4, 5, 6)]
    + ["call pc+2 frame 0", "r0 = 2", "exit"]
    + [f"r{number} = {SECRET:#x} ll" for number in (6, 7, 8, 9)]
    + ["$end"]
)
# Registers, all of the stack and headroom as found, in front of the frame.
DUMP = "\n".join(
    [
        f"*(u64 *)(r10 - {8 * (place + 1)}) = r{number}"
        for place, number in enumerate((0, 2, 3, 4, 5, 6, 7, 8, 9))
    ]
    + ["r6 = r1", "r2 = -216", "call 44", "r7 = r0"]
    + ["r1 = r6", "r2 = 500", "call 65", "r7 |= r0"]
    + ["call pc+5 frame 80", "r0 |= r7", "if r0 != 0 goto +1", "r0 = 1", "r0 += 1", "exit"]
    # A frame below: what its r6 to r9 hold, and the stack that nobody wrote.
    + ["r0 = r6", "r0 |= r7", "r0 |= r8", "r0 |= r9"]
    + [line for at in range(8, 513 - 80, 8) for line in (f"r1 = *(u64 *)(r10 - {at})", "r0 |= r1")]
    + [line for at in range(0, 80, 8) for line in (f"r1 = *(u64 *)(r10 + {at})", "r0 |= r1")]
    + ["exit"]
)


@of_every_size
@pytest.mark.parametrize("end", ["exit", "r0 = *(u8 *)(r0 + 0)", "goto -1"])
def test_nothing_shows_of_an_earlier_packet(bench: Bench, end: str) -> None:
    """Packets that leave secrets wherever they can, ending well or badly, and packets that look there, on every thread
    and in every buffer."""
    bench.write("BUDGET", 5000)
    bench.load(assemble(LEAVE_SECRETS.replace("$end", end)))
    dump = len(assemble(LEAVE_SECRETS.replace("$end", end))) // SLOT_BYTES + 1
    bench.load(assemble(DUMP), dump)
    threads = bench.device.capabilities.cpus
    secret, plain = SECRET.to_bytes(8, "little") * 64, bytes(range(1, 101))
    for program, frame in ((0, secret), (dump, plain), (0, secret), (dump, plain)):
        bench.attach(program)
        packets = bench.run([Arrival(number % 2, frame) for number in range(4 * threads)]).packets
        assert all(packet.accepted for packet in packets)
        if program == dump:
            for packet in packets:
                assert (packet.verdict, packet.cause) == (2, Cause.NONE), "stack or register"
                assert packet.data == bytes(216) + plain + bytes(500)
        elif end == "exit":
            assert {packet.verdict for packet in packets} == {2}
    assert {packet.cpu for packet in packets} == set(range(threads))


LEVELS = 8  # frames
REGISTERS = (0, 2, 3, 4, 5, 6, 7, 8, 9)


def at_each_level(lines: list[str]) -> str:
    """These lines in the outermost function and in each below it."""
    return "\n".join("\n".join([*lines, "call pc+1 frame 16", "exit"]) for _ in range(LEVELS - 1)) + "\n" + "\n".join(
        [*lines, "exit"]
    )


@of_every_size
def test_registers_are_zero_however_often_a_thread_began(bench: Bench) -> None:
    """A register's generation has 8 bits: one that was written 256 packets ago must not come back."""
    bench.write("BUDGET", 5000)
    secrets = [f"r{number} = {SECRET:#x} ll" for number in REGISTERS]
    bench.load(assemble(at_each_level(secrets)))
    check = 1024
    levels = at_each_level(["r0 |= r6", "r0 |= r7", "r0 |= r8", "r0 |= r9"])
    bench.load(assemble("r0 |= r2\nr0 |= r3\nr0 |= r4\nr0 |= r5\nr1 = 0\ncall pc+4 frame 16\nif r0 != 0 goto +2\n"
                        "r0 = 2\nexit\nexit\n" + levels.replace("call pc+1 frame 16\nexit", "", 1)), check)  # fmt: skip
    threads = bench.device.capabilities.cpus
    arrivals = [Arrival(number % 2, FRAME) for number in range(4 * threads)]
    bench.attach(0)
    assert {packet.cause for packet in bench.run(arrivals).packets} == {Cause.VERDICT}
    bench.attach(check)
    for _ in range(70):
        assert {packet.verdict for packet in bench.run(arrivals).packets} == {2}


# -- frames --

MIXED = [14, 15, 16, 21, 22, 23, 59, 60, 61, 62, 63, 64, 65, 127, 128, 1500, 1514, 1791, 1792]
REFUSED = {1: "ERROR", 8: "ERROR", 13: "ERROR", 1793: "LONG", 1800: "LONG", 2048: "LONG", 2049: "LONG", 9018: "LONG"}


@of_every_size
@pytest.mark.parametrize("pacing", [Pacing(), Pacing(ingress_idle=30, egress_stall=50)], ids=["full", "stalled"])
def test_frames_of_every_size(bench: Bench, pacing: Pacing) -> None:
    """Out again as they came in, or refused whole and counted, whatever comes before and behind."""
    bench.load(assemble("r0 = 3\nexit"))
    bench.attach(0)
    before = bench.counters()
    lengths = [length for each in MIXED for length in (each, *REFUSED, 64)]
    arrivals = [
        Arrival(number % 2, bytes((number + i) % 256 for i in range(length)), error=number % 7 == 3)
        for number, length in enumerate(lengths)
    ]
    traffic = bench.run(arrivals, pacing)
    after = bench.counters()
    counted = {name: [b - a for a, b in zip(before[name], after[name], strict=True)] for name in before
               if isinstance(before[name], list)}  # fmt: skip
    refusals = {"REFUSED_LONG": [0] * 4, "REFUSED_ERROR": [0] * 4}  # of clones none
    for arrival, packet in zip(arrivals, traffic.packets, strict=True):
        refusal = REFUSED.get(len(arrival.data), "ERROR" if arrival.error else None)
        assert packet.accepted == (refusal is None), len(arrival.data)
        if refusal:
            refusals[f"REFUSED_{refusal}"][arrival.interface] += 1
        else:
            assert (packet.egress, packet.data) == (arrival.interface, arrival.data)
    assert {name: counted[name] for name in refusals} == refusals
    for interface in range(3):
        mine = [arrival for arrival in arrivals if arrival.interface == interface]
        assert counted["RECEIVED"][interface] == len(mine)
        assert counted["RECEIVED_BYTES"][interface] == sum(len(arrival.data) for arrival in mine)
        sent = [departure for departure in traffic.departures if departure.egress == interface]
        assert counted["SENT"][interface] == len(sent)
        assert counted["SENT_BYTES"][interface] == sum(len(departure.data) for departure in sent)


@of_every_size
def test_frames_of_the_host(bench: Bench) -> None:
    """Out of the port that they ask for; one that there is not is an error. A program on the host's interface runs."""
    bench.write("ENTRY", 0, HOST)
    before = bench.counters()
    arrivals = [Arrival(HOST, bytes([port]) * 60, egress=port) for port in (0, 1, 2, 7, 1, 0)]
    packets = bench.run(arrivals).packets
    assert [packet.egress for packet in packets] == [0, 1, None, None, 1, 0]
    assert [packet.accepted for packet in packets] == [True, True, False, False, True, True]
    after = bench.counters()
    assert after["TRANSMITTED"][HOST] == before["TRANSMITTED"][HOST] + 4
    assert after["REFUSED_ERROR"][HOST] == before["REFUSED_ERROR"][HOST] + 2
    bench.load(assemble("r0 = 3\nexit"))
    bench.attach(0, [HOST])
    (packet,) = bench.run([Arrival(HOST, FRAME, egress=1)]).packets
    assert (packet.action, packet.egress, packet.data) == (XdpAction.XDP_TX, HOST, FRAME)
    bench.write("ENTRY", 0, HOST)


@of_every_size
def test_ports_without_a_program_pass_to_the_host(bench: Bench) -> None:
    for interface in range(2):
        bench.write("ENTRY", 0, interface)
    arrivals = [Arrival(number % 2, FRAME + bytes([number])) for number in range(100)]
    packets = bench.run(arrivals).packets
    assert [(packet.egress, packet.data, packet.verdict) for packet in packets] == [
        (HOST, arrival.data, None) for arrival in arrivals
    ]
