"""The running kernel's word on tests/data: its verifier and its own engine execute the same vectors.

Only those that a verifier can accept: programs that end by themselves, in one place, and reach nothing but registers,
stack, map and skb[]. Their constants come from a map, so that the verifier can't compute the answer beforehand, and the
program itself compares each register with what must come out."""

import os
import re

import pytest

from bpfnic.host.linux import bpf
from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import decode
from bpfnic.spec.isa import Group, Operation
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType
from tests import vectors

SHIFTS = {Operation.LSH, Operation.RSH, Operation.ARSH}
DIVISIONS = {Operation.DIV, Operation.SDIV, Operation.MOD, Operation.SMOD}
ALL_PASSED = 1 << 30
MAP_VALUE = 256  # bytes


def refused_by_rule(vector: vectors.Vector) -> bool:
    """Immediates that Linux's verifier refuses: shift counts out of range, division by 0."""
    for instruction in decode(vector.code(0, entry=0)):
        row = isa.find(instruction) if instruction else None
        if row and row.operation in SHIFTS and not 0 <= instruction.imm < row.width:
            return True
        if row and row.operation in DIVISIONS and not row.register_operand and instruction.imm == 0:
            return True
    return False


NOT_HERE = {
    "context",  # addresses aren't Linux's
    "the_source_may_be_the_base",  # an address is an operand
    "the_base_of_a_local_one_may_be_written",
    "packet_atomic",  # refused, as all atomics on packets
    "packet_atomic_fetch",
    "packet_exchange",
    "packet_loads_at_any_alignment",  # without the bounds that a verifier asks for
    "packet_stores_at_any_alignment",
    "map_values_at_any_alignment",
    "over_a_wide_instruction",  # unreachable code
}


def verifiable(vector: vectors.Vector) -> bool:
    ends = vector.trap is Cause.NONE and vector.section != "-"
    ends_once = re.findall(r"\bexit\b", vector.text) == ["exit"] and vector.text.endswith("exit")
    return ends and ends_once and vector.name.split()[1] not in NOT_HERE and not refused_by_rule(vector)


VECTORS = [vector for vector in vectors.read_all() if verifiable(vector)]


def reads_packet(vector: vectors.Vector) -> bool:
    return any(row.group is Group.PACKET for row in vector.rows)


def program(vector: vectors.Vector, map_fd: int) -> tuple[str, bytes]:
    """The vector's program with its first constants loaded from the map (behind its own bytes) and, in place of its
    exit, comparisons with numbers that stand behind those; and the map's content. Cases of one test that differ in
    nothing else have one text."""
    content, lines = vector.map, []

    def from_map(register: str, value: int) -> list[str]:
        nonlocal content
        content += (value & (1 << 64) - 1).to_bytes(8, "little")
        return [f"{register} = map_val(map_by_fd({map_fd})) + {len(content) - 8} ll",
                f"{register} = *(u64 *)({register} + 0)"]  # fmt: skip

    leading = True
    for line in vector.text.removesuffix("exit").splitlines():
        constant = re.fullmatch(r"(r\d) = (-?\w+) ll", line)
        leading = leading and bool(re.fullmatch(r"r\d = \S+ ll", line))
        if leading and constant:
            lines += from_map(constant[1], int(constant[2], 0))
        else:
            lines.append(line.replace("$map ll", f"map_val(map_by_fd({map_fd})) + 0 ll"))
    # A packet load takes r1 to r5 from the program; what these vectors write to r2 comes after it.
    kept = {number: value for number, value in vector.registers.items() if number != 1 or not reads_packet(vector)}
    lines += [f"*(u64 *)(r10 - {264 + 8 * number}) = r{number}" for number in kept]
    for number, value in kept.items():
        lines += [f"r1 = *(u64 *)(r10 - {264 + 8 * number})", *from_map("r2", value)]
        lines += ["if r1 == r2 goto +2", f"w0 = {number + 1}", "exit"]
    context = ["r6 = r1"] if reads_packet(vector) else []
    return "\n".join([*context, *lines, f"w0 = {ALL_PASSED}", "exit"]), content


class Kernel:
    """A map, and the programs that were loaded with it."""

    def __init__(self) -> None:
        self.map = bpf.map_create(MapType.ARRAY, 4, MAP_VALUE, 1)
        self._programs: dict[tuple[str, ProgramType], int] = {}

    def judge(self, vector: vectors.Vector) -> None:
        text, content = program(vector, self.map)
        key = text, ProgramType.SCHED_CLS if reads_packet(vector) else ProgramType.XDP
        bpf.map_update(self.map, bytes(4), content.ljust(MAP_VALUE, b"\0"))
        if key not in self._programs:
            self._programs[key] = bpf.prog_load(key[1], assemble(text))[0]
        result = bpf.prog_test_run(self._programs[key], vector.packet)
        early = reads_packet(vector) and vector.registers.get(2) == 0  # a load outside the packet ended it, with 0
        assert result.value == (0 if early else ALL_PASSED), f"r{result.value - 1} differs"
        if vector.map_after is not None:
            after = bpf.map_lookup(self.map, bytes(4), MAP_VALUE)
            assert after[: len(vector.map_after)].hex() == vector.map_after.hex()
        if vector.packet_after is not None:
            assert result.data.hex() == vector.packet_after.hex()

    def forget_programs(self) -> None:
        for fd in self._programs.values():
            os.close(fd)
        self._programs = {}

    def close(self) -> None:
        self.forget_programs()
        os.close(self.map)


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel()
    yield kernel
    kernel.close()


TESTS = vectors.by_test(VECTORS)


@pytest.mark.linux
@pytest.mark.parametrize("test", TESTS)
def test_vectors(kernel: Kernel, test: str):
    for vector in TESTS[test]:
        with vectors.named(vector):
            kernel.judge(vector)
    kernel.forget_programs()


def test_most_vectors_are_judged():
    """Whoever changes the rule above sees how many are left."""
    assert len(VECTORS) > 4000
