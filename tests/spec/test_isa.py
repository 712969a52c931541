"""The instruction table against RFC 9669's own opcode registry, and the errors of encoder, decoder and look-up."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.spec import isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, decode, encode
from bpfnic.spec.isa import Legal, Row

REGISTRY = Path(__file__).parents[1] / "data" / "rfc9669_opcodes.txt"

EXTREMES = {
    Legal.REGISTER: (0, 10),
    Legal.WRITTEN: (0, 9),
    Legal.SIGNED16: (-(1 << 15), (1 << 15) - 1),
    Legal.IMM32: (-(1 << 31), (1 << 31) - 1),
    Legal.FRAME: (0, 512),
}


@st.composite
def instructions(draw, rows=isa.ROWS) -> Instruction:
    """Any legal instruction of the rows, extremes included."""
    row = draw(st.sampled_from(rows))
    values = {}
    for field in ("dst", "src", "offset", "imm", "next_imm"):
        legal = getattr(row, field)
        if isinstance(legal, Legal):
            if legal is Legal.BRANCH:
                legal = Legal.SIGNED16 if field == "offset" else Legal.IMM32
            low, high = EXTREMES[legal]
            step = 16 if legal is Legal.FRAME else 1
            legal = draw(st.integers(low // step, high // step)) * step
        values[field] = legal
    return Instruction(row.opcode, **values)


def test_rows_are_those_of_the_registry():
    """Opcode, src, offset, imm and group of each row. The extensions are not the RFC's: their numbers here are those of
    Linux 6.18's include/uapi/linux/bpf.h. 0x00, the second half of a wide instruction, is the registry's alone."""

    def text(legal: int | Legal, exact: str) -> str:
        if legal is Legal.FRAME:  # the RFC's 0, which the loader may replace
            legal = 0
        return exact.format(legal) if isinstance(legal, int) else "any"

    registry = Counter(tuple(line.split()) for line in REGISTRY.read_text().splitlines() if line.startswith("0x"))
    ours = Counter(
        (f"{r.opcode:#04x}", text(r.src, "{:#x}"), text(r.offset, "{}"), text(r.imm, "{:#04x}"), r.group.value)
        for r in isa.ROWS
    )
    assert ours - registry == Counter([
        ("0x8d", "0x0", "0", "0x00", "callx"),
        ("0x85", "0x3", "0", "any", "firmware"),  # between a loader and its devices
        ("0xe5", "0x0", "any", "0x00", "may_goto"),  # BPF_JMP | BPF_JCOND (0xe0), src BPF_MAY_GOTO (0)
        *((opcode, "any", "any", imm, "acquire_release")
          for opcode in ("0xd3", "0xcb", "0xc3", "0xdb")  # BPF_STX | BPF_ATOMIC | BPF_B, BPF_H, BPF_W, BPF_DW
          for imm in ("0x100", "0x110")),  # BPF_LOAD_ACQ, BPF_STORE_REL
    ])  # fmt: skip
    assert registry - ours == {("0x00", "0x0", "0", "any", "base64"): 1}


def test_names_are_unique_and_lower_case():
    assert len(isa.BY_NAME) == len(isa.ROWS)
    assert all(name == name.lower() and name.isidentifier() for name in isa.BY_NAME)


def test_one_field_tells_rows_of_one_opcode_apart():
    for opcode, rows in isa.BY_OPCODE.items():
        assert (isa.DISCRIMINATOR[opcode] is None) == (len(rows) == 1)
        if field := isa.DISCRIMINATOR[opcode]:
            low = {getattr(row, field) & (1 << isa.DISCRIMINATOR_BITS) - 1 for row in rows}
            assert len(low) == len(rows)


@pytest.mark.parametrize(
    "name, width, operation",
    [
        ("add64_reg", 64, "ADD"),
        ("jsgt32_imm", 32, "JSGT"),
        ("ldxw", 32, "LDX"),
        ("ldxsb", 8, "LDXS"),
        ("stxdw", 64, "STX"),
        ("stb", 8, "ST"),
        ("be16", 16, "BE"),
        ("movsx64_8", 64, "MOVSX"),
        ("atomic_cmpxchg32", 32, "ATOMIC_CMPXCHG"),
        ("ld_ind_b", 8, "LD_IND"),
    ],
)
def test_widths(name: str, width: int, operation: str):
    row = isa.BY_NAME[name]
    assert (row.width, row.operation) == (width, isa.Operation[operation])


def test_encoding_is_the_example_of_section_3_1():
    """RFC 9669 section 3.1's example: r1 += 0x11223344 in little-endian."""
    assert Instruction(0x07, dst=1, imm=0x11223344).encode() == bytes.fromhex("0701000044332211")


def test_wide_encoding():
    """Section 3.2: the upper half of the constant is the imm of a second, otherwise empty, slot."""
    instruction = Instruction(0x18, dst=9, src=2, imm=-1, next_imm=0x01020304)
    assert instruction.encode() == bytes.fromhex("18290000ffffffff0000000004030201")
    assert instruction.imm64 == 0x01020304FFFFFFFF
    assert instruction.slots == 2


@given(st.lists(instructions(), max_size=20))
def test_decode_undoes_encode(program: list[Instruction]):
    slots = decode(encode(program))
    assert [slot for slot in slots if slot] == program
    assert len(slots) == sum(instruction.slots for instruction in program)


@given(instructions())
def test_find_gives_a_row_that_refuses_nothing(instruction: Instruction):
    assert isa.refusals(isa.find(instruction), instruction) == []


@given(st.sampled_from(isa.ROWS), st.integers(-(1 << 31), (1 << 31) - 1))
def test_find_refuses_an_exact_field_that_is_off(row: Row, imm: int):
    instruction = Instruction(row.opcode, src=row.src if isinstance(row.src, int) else 0,
                              offset=row.offset if isinstance(row.offset, int) else 0, imm=imm,
                              next_imm=None if row.next_imm is None else 0)  # fmt: skip
    legal = {other.imm for other in isa.BY_OPCODE[row.opcode]}
    if imm in legal or any(isinstance(value, Legal) for value in legal):
        return
    with pytest.raises(BpfnicError, match="imm must be"):
        isa.find(instruction)


@pytest.mark.parametrize(
    "instruction, message",
    [
        (Instruction(0xFF), "unknown opcode 0xff"),
        (Instruction(0x00), "unknown opcode 0x00"),
        (Instruction(0x07, 1, 0, 5), "add64_imm: offset must be 0, not 5"),
        (Instruction(0x07, 1, 3), "add64_imm: src must be 0, not 3"),
        (Instruction(0x07, 10), "add64_imm: dst may not be r10, which is read-only"),
        (Instruction(0x0F, 11), "add64_reg: dst names r11, above r10"),
        (Instruction(0x61, 0, 15), "ldxw: src names r15, above r10"),
        (Instruction(0x37, 1, 0, 2), "opcode 0x37: offset must be one of 0, 1, not 2"),
        (Instruction(0xBF, 1, 1, 32), None),
        (Instruction(0xBC, 1, 1, 32), "opcode 0xbc: offset must be one of 0, 8, 16, not 32"),
        (Instruction(0x85, 0, 7), "opcode 0x85: src must be one of 0, 1, 2, 3, not 7"),
        (Instruction(0x85, 0, 1, 24), "call_local: offset must be a frame size (a multiple of 16 up to 512), not 24"),
        (Instruction(0x18, 1), "lddw: next_imm must be present"),
        (Instruction(0x95, next_imm=0), "exit: next_imm must be absent"),
        (Instruction(0xDB, 1, 10, 0, 1), "atomic_fetch_add64: src may not be r10, which is read-only"),
        (Instruction(0xCB, 1, 2, 0, 0), "opcode 0xcb: imm must be one of 256, 272, not 0"),
        (Instruction(0xDB, 10, 2, 0, 0x100), "load_acquire_dw: dst may not be r10, which is read-only"),
        (Instruction(0xE5, 0, 1, 3), "may_goto: src must be 0, not 1"),
        (Instruction(0x05, 0, 0, 1 << 15), "ja: offset 32768 does not fit 16 bits"),
    ],
)
def test_find_names_the_illegal_field(instruction: Instruction, message: str | None):
    if message is None:
        assert isa.find(instruction).name == "movsx64_32"
        return
    with pytest.raises(BpfnicError) as caught:
        isa.find(instruction)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "code, message",
    [
        ("95000000000000", "instruction 0: truncated to 7 of 8 bytes"),
        ("9500000000000000 18", "instruction 1: truncated to 1 of 8 bytes"),
        ("9500000000000000 1800000000000000", "instruction 1: the second half of a 16-byte instruction is missing"),
        ("1800000000000000 0100000000000000", "instruction 0: in a 16-byte instruction's second half: opcode must be"),
        ("1800000000000000 0001000000000000", "instruction 0: in a 16-byte instruction's second half: dst must be 0"),
        ("1800000000000000 0000010000000000", "instruction 0: in a 16-byte instruction's second half: offset must be"),
    ],
)
def test_decode_names_the_instruction(code: str, message: str):
    with pytest.raises(BpfnicError) as caught:
        decode(bytes.fromhex(code))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "fields", [{"dst": 16}, {"src": -1}, {"offset": 1 << 15}, {"imm": 1 << 31}, {"next_imm": -(1 << 31) - 1}]
)
def test_encode_refuses_what_does_not_fit(fields: dict[str, int]):
    with pytest.raises(BpfnicError, match="can't be encoded"):
        Instruction(0x18, **fields).encode()
