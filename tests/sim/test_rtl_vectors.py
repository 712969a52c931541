"""The vectors of tests/data on a whole NIC: each program comes through the registers, its packet through a port, and
what it did is seen in the trace, in the frame that leaves and in map memory."""

import pytest

from bpfnic.host.device import Arrival, Retirement
from bpfnic.sim.fuzz.compare import describe_maps
from bpfnic.sim.fuzz.program import of_bytes
from bpfnic.sim.fuzz.tables import Tables
from bpfnic.spec import addresses, engine, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import SLOT_BYTES, Instruction, decode
from bpfnic.spec.isa import Operation
from bpfnic.spec.programs import XdpAction
from tests import vectors
from tests.sim.bench import ONE_CORE, Bench

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

ALL = vectors.read_all(maps=True)


TESTS = vectors.by_test(ALL)


def lacking(vector: vectors.Vector) -> str:
    """What the NIC has not, short frames or instructions (one that it doesn't execute traps: test_bad_input.py). Empty
    where it can run the vector."""
    if len(vector.packet) < addresses.ETH_HLEN:
        return "frames below 14 bytes"
    return ", ".join({row.name for row in vector.rows if row.group not in engine.GROUPS})


VECTORS = [vector for vector in ALL if not lacking(vector)]


@pytest.fixture(scope="module", params=["golden", "rtl"])
def bench(request):
    with Bench(request.param, **ONE_CORE) as bench:
        yield bench, describe_maps(bench)


class Registers:
    """Registers as the trace of one program shows them: r6 to r9 are a window of each frame."""

    def __init__(self, code: bytes):
        self.code = code
        self.values = [0] * isa.REGISTERS
        self.values[1], self.values[isa.FRAME_POINTER] = addresses.CONTEXT, addresses.STACK_TOP
        self.frame = 0
        self.callers: list[tuple[int, int]] = []  # frame and r10
        self.windows = [[0] * 4 for _ in range(addresses.FIRMWARE_FRAME + 1)]

    def retire(self, retired: Retirement) -> None:
        if retired.register is not None:
            self.values[retired.register] = retired.value
        instruction = self._instruction(retired.pc)
        operation = isa.find(instruction).operation
        if operation in (Operation.CALL_LOCAL, Operation.CALLX):
            frame_bytes = instruction.offset or isa.DEFAULT_FRAME_BYTES
            self._enter(self.frame + 1, self.values[isa.FRAME_POINTER] - frame_bytes)
        elif operation is Operation.CALL_FIRMWARE:
            self._enter(addresses.FIRMWARE_FRAME, addresses.FIRMWARE_STACK_TOP)
        elif operation is Operation.EXIT and self.callers:
            self._switch(*self.callers.pop())

    def _enter(self, frame: int, pointer: int) -> None:
        self.callers.append((self.frame, self.values[isa.FRAME_POINTER]))
        self._switch(frame, pointer)

    def _switch(self, frame: int, pointer: int) -> None:
        self.windows[self.frame] = self.values[6:10]
        self.values[6:10] = self.windows[frame]
        self.values[isa.FRAME_POINTER] = pointer
        self.frame = frame

    def _instruction(self, pc: int) -> Instruction:
        start = pc * SLOT_BYTES
        found = decode(self.code[start : start + SLOT_BYTES * (1 + (self.code[start] == 0x18))])[0]
        assert found
        return found


@pytest.mark.parametrize("test", TESTS)
def test_vectors(bench: tuple[Bench, Tables], test: str) -> None:
    executed = [vector for vector in TESTS[test] if not lacking(vector)]
    if not executed:
        pytest.skip(f"the NIC has no {lacking(TESTS[test][0])}")
    for vector in executed:
        with vectors.named(vector):
            judge(*bench, vector)


def judge(bench: Bench, tables: Tables, vector: vectors.Vector) -> None:
    map_bytes = bench.device.capabilities.map_bytes
    code = vector.code(addresses.MAP_VALUES, 0, map_bytes, passes=vector.packet_after is not None)
    for index in tables.named(of_bytes(code).instructions()):
        tables.renew(index)
    bench.load(code + bytes(SLOT_BYTES))  # an illegal instruction behind it, whatever stood there
    bench.attach(0)
    bench.set_memory(0, vector.map)
    bench.write("BUDGET", vector.budget)
    traffic = bench.run([Arrival(0, vector.packet)], retirements=True)
    (packet,) = traffic.packets
    registers, pc = Registers(code), 0
    for retired in traffic.retirements:
        assert retired.pc == pc
        registers.retire(retired)
        pc = retired.next_pc
    assert packet.instructions == len(traffic.retirements)
    assert (packet.cause if packet.verdict is None else Cause.NONE) is vector.trap
    assert vector.pc is None or vector.trap is Cause.NONE or vector.pc == pc
    expected = dict(vector.registers)
    if vector.packet_after is not None:
        expected.pop(0, None)
        assert (packet.action, packet.data.hex()) == (XdpAction.XDP_PASS, vector.packet_after.hex())
    assert {number: hex(registers.values[number]) for number in expected} == {
        number: hex(value) for number, value in expected.items()
    }
    if packet.verdict is not None:
        assert packet.verdict == registers.values[0] & 0xFFFFFFFF
    if vector.map_after is not None:
        length = len(vector.map_after)
        assert bench.memory(0, -(-length // 4) * 4)[:length].hex() == vector.map_after.hex()


def test_most_vectors_are_executed() -> None:
    """Those that aren't: frames of less than 14 bytes."""
    print(f"{len(VECTORS)} of {len(ALL)} vectors run on the NIC")
    assert len(VECTORS) > 0.95 * len(ALL)
