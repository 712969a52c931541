"""Assembler and disassembler undo each other, and clang, from outside, assembles the same text to the same bytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble, disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, decode
from bpfnic.spec.isa import Legal, Operation

EXTREMES = {
    Legal.REGISTER: (0, 10),
    Legal.WRITTEN: (0, 9),
    Legal.SIGNED16: (-(1 << 15), (1 << 15) - 1),
    Legal.IMM32: (-(1 << 31), (1 << 31) - 1),
}

OURS = {Operation.CALL_LOCAL, Operation.CALL_BTF, Operation.CALL_FIRMWARE, Operation.LDDW_REFERENCE}
"""What llvm-objdump prints ambiguously, so that its text isn't ours; and what no compiler emits."""


def example(row: isa.Row, registers: tuple[int, int], end: int) -> Instruction:
    """The instruction of a row at the low (end 0) or high (end 1) end of every range."""
    values = {"dst": registers[0], "src": registers[1]}
    for field in ("dst", "src", "offset", "imm", "next_imm"):
        legal = getattr(row, field)
        if legal is Legal.BRANCH:
            values[field] = EXTREMES[Legal.SIGNED16][end]
        elif legal in (Legal.SIGNED16, Legal.IMM32):
            values[field] = EXTREMES[legal][end]
        elif legal is Legal.FRAME:
            values[field] = 0  # clang knows no other
        elif not isinstance(legal, Legal):
            values[field] = legal
    return Instruction(row.opcode, **values)


def clang_assembles(text: str, folder: Path) -> bytes:
    clang = [sys.executable, "-m", "ziglang", "cc"]  # one on PATH may be older than load_acquire
    source, target = folder / "x.s", folder / "x.o"
    source.write_text(text)
    command = [*clang, "-target", "bpfel-freestanding-none", "-mcpu=v4", "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with target.open("rb") as file:
        return ELFFile(file).get_section_by_name(".text").data()


@given(st.data())
def test_assemble_undoes_disassemble(data):
    row = data.draw(st.sampled_from(isa.ROWS))
    values = {}
    for field in ("dst", "src", "offset", "imm", "next_imm"):
        legal = getattr(row, field)
        if legal is Legal.FRAME:
            legal = data.draw(st.integers(0, 32)) * 16
        elif isinstance(legal, Legal):
            wide = Legal.SIGNED16 if field == "offset" else Legal.IMM32
            legal = data.draw(st.integers(*EXTREMES[wide if legal is Legal.BRANCH else legal]))
        values[field] = legal
    instruction = Instruction(row.opcode, **values)
    assert assemble(disassemble(instruction)) == instruction.encode()


def test_clang_assembles_our_text_to_our_bytes(tmp_path: Path):
    """Every row, at both ends of its ranges, but those whose text is ours alone."""
    program = []
    for row in isa.ROWS:
        if row.operation in OURS:
            continue
        for registers, end in (((0, 9), 0), ((9, 0), 1)):
            instruction = example(row, registers, end)
            # clang has no place for ld_ind's displacement.
            if row.operation is Operation.LD_IND:
                instruction = Instruction(row.opcode, src=registers[1])
            program.append(instruction)
    text = [disassemble(instruction).replace(" + 0x0]", "]") for instruction in program]
    assert decode(clang_assembles("\n".join(text) + "\n", tmp_path)) == decode(b"".join(i.encode() for i in program))


@pytest.mark.parametrize(
    "text",
    [
        "w1 = *(u8 *)(r2 + 4)",
        "w1 = *(u32 *)(r2 - 4)",
        "*(u16 *)(r1 + 0) = w2",
        "w1 = 0xffffffff",
        "w1 &= 4294967295",
        "if w1 == 0x80000000 goto +1",
        "r1 = 0xffffffffffffffff ll",
        "r1 = -1 ll",
        "r0 = *(u8 *)skb[r1]",
        "l: r1 += -1 # comment\nif r1 != 0 goto l\ngotol out // comment\nr1 = 1 ll\nout:\nexit",
    ],
)
def test_clang_agrees_on_what_people_write(text: str, tmp_path: Path):
    assert assemble(text) == clang_assembles(text + "\n", tmp_path)


@pytest.mark.parametrize(
    "code, text",
    [
        ("71 10 00 00 00000000", "r0 = *(u8 *)(r1 + 0x0)"),
        ("79 a1 f8 ff 00000000", "r1 = *(u64 *)(r10 - 0x8)"),
        ("2d 21 05 00 00000000", "if r1 > r2 goto +0x5"),
        ("bc 10 00 00 00000000", "w0 = w1"),
        ("db 21 00 00 00000000", "lock *(u64 *)(r1 + 0x0) += r2"),
        ("db 01 00 00 01000000", "r0 = atomic_fetch_add((u64 *)(r1 + 0x0), r0)"),
        ("85 00 00 00 01000000", "call 0x1"),
        ("85 10 00 00 ffffffff", "call pc-0x1"),
        ("85 10 40 00 05000000", "call pc+0x5 frame 0x40"),
        ("85 20 00 00 07000000", "call btf 0x7"),
        ("85 30 00 00 fdffffff", "call_firmware -0x3"),
        ("18 01 00 00 00000000 00000000 00000000", "r1 = 0x0 ll"),
        ("18 11 00 00 03000000 00000000 00000000", "r1 = map_by_fd(0x3) ll"),
        ("18 21 00 00 03000000 00000000 08000000", "r1 = map_val(map_by_fd(0x3)) + 0x8 ll"),
        ("d7 00 00 00 40000000", "r0 = bswap64 r0"),
        ("d4 01 00 00 10000000", "r1 = le16 r1"),
        ("06 00 00 00 feffffff", "gotol -0x2"),
        ("bf 21 08 00 00000000", "r1 = (s8)r2"),
        ("3f 21 01 00 00000000", "r1 s/= r2"),
        ("50 10 00 00 0e000000", "r0 = *(u8 *)skb[r1 + 0xe]"),
        ("8d 03 00 00 00000000", "callx r3"),
        ("db 10 00 00 00010000", "r0 = load_acquire((u64 *)(r1 + 0x0))"),
        ("d3 a9 ff ff 00010000", "w9 = load_acquire((u8 *)(r10 - 0x1))"),
        ("cb 21 02 00 10010000", "store_release((u16 *)(r1 + 0x2), w2)"),
        ("e5 00 05 00 00000000", "may_goto +0x5"),
    ],
)
def test_text(code: str, text: str):
    code = bytes.fromhex(code)
    assert disassemble(decode(code)[0]) == text
    assert assemble(text) == code


def test_labels_count_slots():
    """A wide instruction is two slots; calls and code_addr count from the slot behind their first."""
    code = assemble("""
        call function       ; 0
        r1 = code_addr(function) ll
        r2 = 0x1122334455667788 ll
        exit
    function: exit          ; 6
    """)
    slots = decode(code)
    assert (slots[0].src, slots[0].imm) == (1, 5)
    assert (slots[1].src, slots[1].imm) == (4, 4)
    assert slots[3].imm64 == 0x1122334455667788
    assert len(slots) == 7


@pytest.mark.parametrize(
    "text, message",
    [
        ("exit\nr1 = foo", "line 2: `r1 = foo`: no such instruction"),
        ("r1 + r2", "line 1: `r1 + r2`: no such instruction"),
        ("r11 = 1", "line 1: `r11 = 1`: mov64_imm: dst names r11, above r10"),
        ("r10 = 1", "line 1: `r10 = 1`: mov64_imm: dst may not be r10, which is read-only"),
        ("r1 = 0xffffffff", "line 1: `r1 = 0xffffffff`: mov64_imm: imm 4294967295 does not fit 32 bits"),
        ("w1 = 0x100000000", "line 1: `w1 = 0x100000000`: mov32_imm: imm 4294967296 does not fit 32 bits"),
        ("r1 = 0x10000000000000000 ll", "0x10000000000000000 does not fit 64 bits"),
        ("r1 = 1x ll", "line 1: `r1 = 1x ll`: +1x is no number"),
        ("goto +40000", "line 1: `goto +40000`: ja: offset 40000 does not fit 16 bits"),
        ("goto there", "line 1: `goto there`: label there is not defined"),
        ("a:\na: exit", "line 2: label a is defined twice"),
        ("r1 = le16 r2", "line 1: `r1 = le16 r2`: r2 where le16 must name r1"),
        ("r1 = cmpxchg_64(r1 + 0, r0, r2)", "r1 where atomic_cmpxchg64 must name r0"),
        ("call pc+1 frame 8", "call_local: offset must be a frame size (a multiple of 16 up to 512), not 8"),
    ],
)
def test_errors_name_the_line(text: str, message: str):
    with pytest.raises(BpfnicError) as caught:
        assemble(text)
    assert message in str(caught.value)


def test_disassemble_refuses_what_is_illegal():
    with pytest.raises(BpfnicError, match="offset must be 0, not 5"):
        disassemble(Instruction(0x07, 1, 0, 5))
