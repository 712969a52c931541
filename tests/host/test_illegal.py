"""No illegal encoding passes the loader: every row with every field wrong, every jump to no instruction, every fall off
the end, each refused with the instruction's number and the field. What engines do with them: tests/sim."""

import random
from collections import Counter

import pytest

import bpfnic
from bpfnic.host.image import place_frames
from bpfnic.host.structure import check
from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, decode, encode
from bpfnic.spec.isa import Legal, Operation
from tests.encodings import illegal, instance, soup

START, END = assemble("r0 = 0"), assemble("exit")
ENDS_A_FUNCTION = (Operation.EXIT, Operation.JA)


def refused(code: bytes, message: str) -> None:
    with pytest.raises(BpfnicError, match=f"^program 'p', {message}") as caught:
        check(decode(code), "p")
    assert "\n" not in str(caught.value)


def test_every_field_of_every_row():
    cases = list(illegal())
    for _name, field, instruction in cases:
        refused(START + encode([instruction]) + END, rf"instruction 1: .*\b{field} (must|may not|names) ")
    rows = Counter(name for name, _, _ in cases)
    assert set(rows) == set(isa.BY_NAME)
    assert len(cases) > 5000


def test_every_opcode_that_is_none():
    for opcode in set(range(256)) - set(isa.BY_OPCODE):
        refused(START + encode([Instruction(opcode)]) + END, rf"instruction 1: .*: unknown opcode 0x{opcode:02x}$")


@pytest.mark.parametrize(("byte", "field", "value"), [(8, "opcode", 1), (9, "dst", 1), (10, "offset", 1)])
def test_the_second_half_of_a_wide_instruction(byte, field, value):
    code = bytearray(assemble("r1 = 5 ll"))
    code[byte] = value
    with pytest.raises(BpfnicError, match=rf"^instruction 1: .* second half: {field} must be 0, not {value}$"):
        decode(START + code + END)


JUMPS = [row for row in isa.ROWS if Legal.BRANCH in (row.offset, row.imm) and row.group is not isa.Group.FIRMWARE]


def at_distance(row: isa.Row, distance: int) -> bytes:
    """START, the jump to so many slots behind it, a wide instruction, exit."""
    field = "offset" if row.offset is Legal.BRANCH else "imm"
    return START + encode([instance(row, **{field: distance})]) + assemble("r1 = 5 ll") + END


@pytest.mark.parametrize("row", JUMPS, ids=lambda row: row.name)
def test_every_jump_to_no_instruction(row):
    field = "offset" if row.offset is Legal.BRANCH else "imm"
    wide = 1 if row.next_imm is not None else 0  # code_addr, which counts from behind its first slot
    verb = "calls" if row.operation in (Operation.CALL_LOCAL, Operation.LDDW_REFERENCE) else "jumps to"
    legs = (1 << 15) - 1 if field == "offset" else (1 << 31) - 1
    for distance, why in ((1 + wide, "the second half of a 16-byte instruction"), (3 + wide, "outside the program"),
                          (-3, "outside the program"), (legs, "outside the program"),
                          (-legs - 1, "outside the program")):  # fmt: skip
        refused(at_distance(row, distance), rf"instruction 1: .*: {field} {distance} {verb} {2 + distance}, {why}$")


@pytest.mark.parametrize("distance", [-2, 0, 1000])
def test_no_object_calls_a_privileged_routine(distance: int):
    call = instance(isa.BY_NAME["call_firmware"], imm=distance)
    refused(START + encode([call]) + END,
            r"instruction 1: call_firmware [+-]\w+: a loader alone calls privileged routines of the firmware$")


ENDLESS = [row for row in isa.ROWS if row.operation not in ENDS_A_FUNCTION and row.group is not isa.Group.FIRMWARE]


@pytest.mark.parametrize("row", ENDLESS, ids=lambda r: r.name)
def test_every_row_that_a_program_may_not_end_with(row):
    if row.operation in (Operation.CALL_LOCAL, Operation.LDDW_REFERENCE) and Legal.BRANCH in (row.offset, row.imm):
        changes = {"imm": -2}  # the program itself
    elif row.offset is Legal.BRANCH:
        changes = {"offset": -1}
    else:
        changes = {"imm": 7} if row.operation is Operation.CALL_HELPER else {}
    code = START + encode([instance(row, **changes)])
    refused(code, r"instruction 1: .*: the function at 0 runs off its end here$")


@pytest.mark.parametrize(
    ("assembly", "message"),
    [
        (".8byte 0xff", r"instruction \d+: ff 00 00 00 00 00 00 00: unknown opcode 0xff \(.*:5: asm"),
        (".8byte 0xc3bf", r"instruction \d+: bf c3 .*: mov64_reg: src names r12, above r10 \(.*:5: asm"),
        (".8byte 0x100000095", r"instruction \d+: 95 .*: exit: imm must be 0, not 1 \(.*:5: asm"),
        ("goto +1000", r"instruction \d+: goto \+0x3e8: offset 1000 jumps to \d+, outside the program \(.*:5: asm"),
        (".8byte 0x10005\n.8byte 0x18\n.8byte 0", r"instruction \d+: goto \+0x1: offset 1 jumps to \d+, the second "
                                                  r"half of a 16-byte instruction \(.*:5: asm"),
    ],
)  # fmt: skip
def test_an_object_with_it_is_refused_by_its_line(build, assembly, message):
    quoted = assembly.replace("\n", "\\n")
    obj = build(f"""#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int program(struct xdp_md *ctx)
{{
	asm volatile("{quoted}");
	return XDP_PASS;
}}
""")
    with bpfnic.Nic("golden") as nic, pytest.raises(BpfnicError, match=rf"^program 'program', {message}") as caught:
        nic.load(obj)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assembly", "message"),
    [
        (".8byte 0x18\\n.8byte 0x10000", r"instruction \d+: .* second half: offset must be 0, not 1"),
        (".byte 0x95", "function 'program' ends at byte"),
    ],
)
def test_an_object_whose_code_is_no_instructions_is_refused_by_its_file(build, assembly, message):
    with pytest.raises(BpfnicError, match=rf"\.o: section 'xdp'.*{message}"):
        obj = build("#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
                    f'SEC("xdp") int program(void *ctx) {{ asm volatile("{assembly}"); return 2; }}')  # fmt: skip
        obj.program().link(None)


def test_random_bytes_are_refused_in_one_line_or_are_a_program():
    passed = 0
    for seed in range(4000):
        chance = random.Random(seed)
        code = soup(chance, chance.choice([0, 1, 1, 2, 3, 8, 30])) + chance.choice([END, END, b"", bytes(3)])
        try:
            instructions = decode(code)
            check(instructions, "p")
            assert all(isa.find(instruction) for instruction in instructions if instruction)
            place_frames(instructions, "p")
            passed += 1
        except BpfnicError as error:
            assert str(error) and "\n" not in str(error)
    assert 100 < passed < 2000
