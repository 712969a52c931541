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
    exit, the comparisons; and the map's content."""
    content, lines = vector.map, []
    leading = True
    for line in vector.text.removesuffix("exit").splitlines():
        constant = re.fullmatch(r"(r\d) = (-?\w+) ll", line)
        leading = leading and bool(re.fullmatch(r"r\d = \S+ ll", line))
        if leading and constant:
            register, value = constant.groups()
            lines += [f"{register} = map_val(map_by_fd({map_fd})) + {len(content)} ll"]
            lines += [f"{register} = *(u64 *)({register} + 0)"]
            content += (int(value, 0) & (1 << 64) - 1).to_bytes(8, "little")
        else:
            lines.append(line.replace("$map ll", f"map_val(map_by_fd({map_fd})) + 0 ll"))
    # A packet load takes r1 to r5 from the program; what these vectors write to r2 comes after it.
    kept = {number: value for number, value in vector.registers.items() if number != 1 or not reads_packet(vector)}
    lines += [f"*(u64 *)(r10 - {264 + 8 * number}) = r{number}" for number in kept]
    for number, value in kept.items():
        lines += [f"r1 = *(u64 *)(r10 - {264 + 8 * number})", f"r2 = {value} ll"]
        lines += ["if r1 == r2 goto +2", f"w0 = {number + 1}", "exit"]
    context = ["r6 = r1"] if reads_packet(vector) else []
    return "\n".join([*context, *lines, f"w0 = {ALL_PASSED}", "exit"]), content


@pytest.mark.linux
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: vectors.Vector):
    map_fd = bpf.map_create(MapType.ARRAY, 4, 256, 1)
    try:
        text, content = program(vector, map_fd)
        bpf.map_update(map_fd, bytes(4), content.ljust(256, b"\0"))
        fd, _ = bpf.prog_load(ProgramType.SCHED_CLS if reads_packet(vector) else ProgramType.XDP, assemble(text))
        try:
            result = bpf.prog_test_run(fd, vector.packet).value
        finally:
            os.close(fd)
        early = reads_packet(vector) and vector.registers[2] == 0  # a load outside the packet ended it, with 0
        assert result == (0 if early else ALL_PASSED), f"r{result - 1} differs"
        after = bpf.map_lookup(map_fd, bytes(4), 256)
    finally:
        os.close(map_fd)
    if vector.map_after is not None:
        assert after[: len(vector.map_after)].hex() == vector.map_after.hex()


def test_most_vectors_are_judged():
    """Whoever changes the rule above sees how many are left."""
    assert len(VECTORS) > 300
