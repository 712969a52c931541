"""The instruction table: one row for each instruction form of RFC 9669, all conformance groups, and of the extensions
that Linux 6.18 and compilers have agreed on since (docs/extensions.md says how one is added).

Decoder, assembler, disassembler, models, fuzzer and documents read these rows; what an instruction *does* is written
in none of them. A row is found by its opcode and, where several share one, by the exact integers in its other fields:
signed division and sign-extending moves by `offset`, calls and 64-bit immediates by `src`, atomics and byte swaps by
`imm`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from functools import lru_cache

from bpfnic.spec.addresses import FRAME_ALIGN, STACK_BYTES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import WIDE_OPCODE, Instruction

REGISTERS = 11
FRAME_POINTER = 10
"""r10: read-only, the top of the current function's stack frame."""

DEFAULT_FRAME_BYTES = 64
"""The caller's stack frame where a local call's offset says 0."""


class Class(IntEnum):
    """Instruction class: the low three bits of an opcode (RFC 9669 section 3.3)."""

    LD = 0
    LDX = 1
    ST = 2
    STX = 3
    ALU = 4
    JMP = 5
    JMP32 = 6
    ALU64 = 7


class Legal(Enum):
    """What a field may hold, where that isn't one exact integer."""

    REGISTER = auto()
    """A register that is read: r0 to r10."""
    WRITTEN = auto()
    """A register that is written (and perhaps read too): r0 to r9, for r10 is read-only."""
    SIGNED16 = auto()
    """Any signed 16-bit integer: a distance in bytes from a base register."""
    IMM32 = auto()
    """Any signed 32-bit integer."""
    BRANCH = auto()
    """A signed distance in slots, counted from the slot behind this instruction."""
    FRAME = auto()
    """Bytes of the caller's stack frame: a multiple of 16 from 0 to 512. Compilers write 0, as RFC 9669 has it (then
    the frame is DEFAULT_FRAME_BYTES); the loader puts the real size there."""


class Group(Enum):
    """Conformance groups: RFC 9669's (section 2.4), then one for each extension. The order is that of the bits in the
    GROUPS register, so that a new one goes to the end."""

    BASE32 = "base32"
    BASE64 = "base64"
    DIVMUL32 = "divmul32"
    DIVMUL64 = "divmul64"
    ATOMIC32 = "atomic32"
    ATOMIC64 = "atomic64"
    PACKET = "packet"
    CALLX = "callx"
    """Calls through pointers, as clang and GCC emit them: of a function where the register holds a code address
    (spec/addresses.py), otherwise of the helper whose number it holds, as user-space runtimes have it."""
    ACQUIRE_RELEASE = "acquire_release"
    """Loads and stores of all sizes that order those around them (Linux 6.15, include/uapi/linux/bpf.h BPF_LOAD_ACQ and
    BPF_STORE_REL; clang emits them with -mcpu=v4). They take what a plain load or store takes, naturally aligned
    wherever it is: a misaligned one traps, in packets and map values too. The order itself costs nothing here: a thread
    begins no access before the one before it is done."""
    MAY_GOTO = "may_goto"
    """A conditional jump on the instruction budget (Linux 6.9, BPF_JCOND with src BPF_MAY_GOTO; libbpf's can_loop and
    cond_break). It jumps once less than half of the budget is left, exactly: where

        budget - retired < budget >> 1

    with `budget` the packet's and `retired` the instructions that retired before this one; otherwise it falls through.
    So a loop with one inside ends by itself, and what follows has the other half. Linux bounds the loop by a count or
    by time instead: 8,388,608 passes for each function, or 250 ms (kernel/bpf/core.c, bpf_check_timed_may_goto).
    The default budget of 16,777,215 comes to the same order; which pass is the last isn't specified in either."""
    FIRMWARE = "firmware"
    """The call of a privileged routine, which a loader alone writes: no object may hold it. Whoever the caller is, the
    routine runs in frame 8 (addresses.FIRMWARE_FRAME), which has r6 to r9 of its own and r10 at the top of the firmware
    stack, which no other frame reaches. Its exit goes back to the caller's frame and r10. It may call helpers; calls of
    functions and other routines trap as CALL_DEPTH. r0 to r5 are the caller's, as for any function."""


class Operation(Enum):
    """What is done. Width, and whether the operand is a register or an immediate, are fields of the row."""

    __hash__ = object.__hash__  # Enum's own is Python, and tables by operation are everywhere

    ADD = auto()
    SUB = auto()
    MUL = auto()
    DIV = auto()
    SDIV = auto()
    OR = auto()
    AND = auto()
    LSH = auto()
    RSH = auto()
    ARSH = auto()
    NEG = auto()
    MOD = auto()
    SMOD = auto()
    XOR = auto()
    MOV = auto()
    MOVSX = auto()
    LE = auto()
    BE = auto()
    BSWAP = auto()

    JA = auto()
    JEQ = auto()
    JNE = auto()
    JGT = auto()
    JGE = auto()
    JLT = auto()
    JLE = auto()
    JSET = auto()
    JSGT = auto()
    JSGE = auto()
    JSLT = auto()
    JSLE = auto()
    MAY_GOTO = auto()
    CALL_HELPER = auto()
    CALL_LOCAL = auto()
    CALL_BTF = auto()
    CALLX = auto()
    CALL_FIRMWARE = auto()
    EXIT = auto()

    LDX = auto()
    LDXS = auto()
    ST = auto()
    STX = auto()
    LDDW = auto()
    """The 64-bit constant `imm64`."""
    LDDW_REFERENCE = auto()
    """A 64-bit immediate that stands for a map, variable or function. The loader makes it an LDDW; engines trap it."""
    LD_ABS = auto()
    LD_IND = auto()

    ATOMIC_ADD = auto()
    ATOMIC_OR = auto()
    ATOMIC_AND = auto()
    ATOMIC_XOR = auto()
    ATOMIC_FETCH_ADD = auto()
    ATOMIC_FETCH_OR = auto()
    ATOMIC_FETCH_AND = auto()
    ATOMIC_FETCH_XOR = auto()
    ATOMIC_XCHG = auto()
    ATOMIC_CMPXCHG = auto()
    LOAD_ACQUIRE = auto()
    STORE_RELEASE = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction form.

    `width` is in bits: of the operation for arithmetic, jumps and atomics (32, 64), of the access for loads and stores
    (8 to 64), of the swap for LE, BE and BSWAP (16 to 64); 64 for JA, calls, EXIT and LDDW. A 32-bit operation zeroes
    the upper half of the register that it writes. MOVSX extends from as many bits as its `offset` says (8, 16, 32).

    `dst`, `src`, `offset`, `imm` and `next_imm` are an exact integer or a `Legal`; `next_imm` is None for an 8-byte
    instruction. `section` is RFC 9669's. `syntax` is llvm-objdump's text with fields in braces (see spec/assembly.py).
    """

    name: str
    opcode: int
    operation: Operation
    width: int
    dst: int | Legal
    src: int | Legal
    offset: int | Legal
    imm: int | Legal
    group: Group
    section: str
    syntax: str
    next_imm: int | Legal | None = None

    @property
    def instruction_class(self) -> Class:
        return Class(self.opcode & 7)

    @property
    def register_operand(self) -> bool:
        """True where an arithmetic or conditional jump instruction takes its second operand from `src`, not `imm`."""
        return self.src is Legal.REGISTER


# Opcode fields (RFC 9669 sections 4, 5): operation << 4 | source << 3 | class, or mode << 5 | size << 3 | class.
_IMMEDIATE, _REGISTER = 0x00, 0x08
_MODE_ABS, _MODE_IND, _MODE_MEM, _MODE_MEMSX, _MODE_ATOMIC = 0x20, 0x40, 0x60, 0x80, 0xC0
_SIZES = {32: (0x00, "w"), 16: (0x08, "h"), 8: (0x10, "b"), 64: (0x18, "dw")}
_GROUP = {
    "base": {32: Group.BASE32, 64: Group.BASE64},
    "divmul": {32: Group.DIVMUL32, 64: Group.DIVMUL64},
    "atomic": {32: Group.ATOMIC32, 64: Group.ATOMIC64},
}


def _arithmetic() -> Iterator[Row]:
    table = (  # operation, code, offset, group, sign
        (Operation.ADD, 0x00, 0, "base", "+="),
        (Operation.SUB, 0x10, 0, "base", "-="),
        (Operation.MUL, 0x20, 0, "divmul", "*="),
        (Operation.DIV, 0x30, 0, "divmul", "/="),
        (Operation.SDIV, 0x30, 1, "divmul", "s/="),
        (Operation.OR, 0x40, 0, "base", "|="),
        (Operation.AND, 0x50, 0, "base", "&="),
        (Operation.LSH, 0x60, 0, "base", "<<="),
        (Operation.RSH, 0x70, 0, "base", ">>="),
        (Operation.MOD, 0x90, 0, "divmul", "%="),
        (Operation.SMOD, 0x90, 1, "divmul", "s%="),
        (Operation.XOR, 0xA0, 0, "base", "^="),
        (Operation.MOV, 0xB0, 0, "base", "="),
        (Operation.ARSH, 0xC0, 0, "base", "s>>="),
    )
    for width, klass, r in ((32, Class.ALU, "w"), (64, Class.ALU64, "r")):
        for operation, code, offset, group, sign in table:
            stem, left = f"{operation.name.lower()}{width}", f"{r}{{dst}} {sign}"
            yield Row(f"{stem}_reg", code | _REGISTER | klass, operation, width, Legal.WRITTEN, Legal.REGISTER, offset,
                      0, _GROUP[group][width], "4.1", f"{left} {r}{{src}}")  # fmt: skip
            yield Row(f"{stem}_imm", code | _IMMEDIATE | klass, operation, width, Legal.WRITTEN, 0, offset,
                      Legal.IMM32, _GROUP[group][width], "4.1", f"{left} {{imm}}")  # fmt: skip
        yield Row(f"neg{width}", 0x80 | klass, Operation.NEG, width, Legal.WRITTEN, 0, 0, 0,
                  _GROUP["base"][width], "4.1", f"{r}{{dst}} = -{r}{{dst}}")  # fmt: skip
        for bits in (8, 16, 32)[: 2 if width == 32 else 3]:
            yield Row(f"movsx{width}_{bits}", 0xB0 | _REGISTER | klass, Operation.MOVSX, width, Legal.WRITTEN,
                      Legal.REGISTER, bits, 0, _GROUP["base"][width], "4.1",
                      f"{r}{{dst}} = (s{bits}){r}{{src}}")  # fmt: skip


def _byte_swaps() -> Iterator[Row]:
    for operation, opcode in ((Operation.LE, 0xD4), (Operation.BE, 0xDC), (Operation.BSWAP, 0xD7)):
        for width in (16, 32, 64):
            name = f"{operation.name.lower()}{width}"
            group = Group.BASE64 if width == 64 else Group.BASE32
            yield Row(name, opcode, operation, width, Legal.WRITTEN, 0, 0, width, group, "4.2",
                      f"r{{dst}} = {name} r{{dst}}")  # fmt: skip


def _jumps() -> Iterator[Row]:
    table = (
        (Operation.JEQ, 0x10, "=="),
        (Operation.JGT, 0x20, ">"),
        (Operation.JGE, 0x30, ">="),
        (Operation.JSET, 0x40, "&"),
        (Operation.JNE, 0x50, "!="),
        (Operation.JSGT, 0x60, "s>"),
        (Operation.JSGE, 0x70, "s>="),
        (Operation.JLT, 0xA0, "<"),
        (Operation.JLE, 0xB0, "<="),
        (Operation.JSLT, 0xC0, "s<"),
        (Operation.JSLE, 0xD0, "s<="),
    )
    for width, klass, r in ((32, Class.JMP32, "w"), (64, Class.JMP, "r")):
        for operation, code, sign in table:
            stem, left = f"{operation.name.lower()}{width}", f"if {r}{{dst}} {sign}"
            yield Row(f"{stem}_reg", code | _REGISTER | klass, operation, width, Legal.REGISTER, Legal.REGISTER,
                      Legal.BRANCH, 0, _GROUP["base"][width], "4.3", f"{left} {r}{{src}} goto {{offset}}")  # fmt: skip
            yield Row(f"{stem}_imm", code | _IMMEDIATE | klass, operation, width, Legal.REGISTER, 0,
                      Legal.BRANCH, Legal.IMM32, _GROUP["base"][width], "4.3",
                      f"{left} {{imm}} goto {{offset}}")  # fmt: skip
    base = Group.BASE32
    yield Row("ja", 0x05, Operation.JA, 64, 0, 0, Legal.BRANCH, 0, base, "4.3", "goto {offset}")
    yield Row("ja32", 0x06, Operation.JA, 64, 0, 0, 0, Legal.BRANCH, base, "4.3", "gotol {imm}")
    yield Row("may_goto", 0xE5, Operation.MAY_GOTO, 64, 0, 0, Legal.BRANCH, 0, Group.MAY_GOTO, "",
              "may_goto {offset}")  # fmt: skip
    # llvm-objdump writes every call as `call 0x5`: `pc` (as bpftool has it) and `btf` keep the three apart.
    yield Row("call_helper", 0x85, Operation.CALL_HELPER, 64, 0, 0, 0, Legal.IMM32, base, "4.3.1", "call {imm}")
    yield Row("call_local", 0x85, Operation.CALL_LOCAL, 64, 0, 1, Legal.FRAME, Legal.BRANCH, base, "4.3.2",
              "call pc{imm} frame {offset}")  # fmt: skip
    yield Row("call_btf", 0x85, Operation.CALL_BTF, 64, 0, 2, 0, Legal.IMM32, base, "4.3.1", "call btf {imm}")
    yield Row("call_firmware", 0x85, Operation.CALL_FIRMWARE, 64, 0, 3, 0, Legal.BRANCH, Group.FIRMWARE, "",
              "call_firmware {imm}")  # fmt: skip
    yield Row("callx", 0x8D, Operation.CALLX, 64, Legal.REGISTER, 0, Legal.FRAME, 0, Group.CALLX, "",
              "callx r{dst} frame {offset}")  # fmt: skip
    yield Row("exit", 0x95, Operation.EXIT, 64, 0, 0, 0, 0, base, "4.3", "exit")


def _memory() -> Iterator[Row]:
    for width, (size, letter) in _SIZES.items():
        group = Group.BASE64 if width == 64 else Group.BASE32
        cell = f"*(u{width} *)(r{{base}} {{offset}})"
        yield Row(f"ldx{letter}", _MODE_MEM | size | Class.LDX, Operation.LDX, width, Legal.WRITTEN, Legal.REGISTER,
                  Legal.SIGNED16, 0, group, "5.1", "r{dst} = " + cell.replace("base", "src"))  # fmt: skip
        yield Row(f"st{letter}", _MODE_MEM | size | Class.ST, Operation.ST, width, Legal.REGISTER, 0,
                  Legal.SIGNED16, Legal.IMM32, group, "5.1", cell.replace("base", "dst") + " = {imm}")  # fmt: skip
        yield Row(f"stx{letter}", _MODE_MEM | size | Class.STX, Operation.STX, width, Legal.REGISTER, Legal.REGISTER,
                  Legal.SIGNED16, 0, group, "5.1", cell.replace("base", "dst") + " = r{src}")  # fmt: skip
        if width != 64:
            yield Row(f"ldxs{letter}", _MODE_MEMSX | size | Class.LDX, Operation.LDXS, width, Legal.WRITTEN,
                      Legal.REGISTER, Legal.SIGNED16, 0, group, "5.2",
                      f"r{{dst}} = *(s{width} *)(r{{src}} {{offset}})")  # fmt: skip
            yield Row(f"ld_abs_{letter}", _MODE_ABS | size | Class.LD, Operation.LD_ABS, width, 0, 0, 0, Legal.IMM32,
                      Group.PACKET, "5.5", f"r0 = *(u{width} *)skb[{{imm}}]")  # fmt: skip
            yield Row(f"ld_ind_{letter}", _MODE_IND | size | Class.LD, Operation.LD_IND, width, 0, Legal.REGISTER, 0,
                      Legal.IMM32, Group.PACKET, "5.5", f"r0 = *(u{width} *)skb[r{{src}} {{imm:signed}}]")  # fmt: skip


def _wide_immediates() -> Iterator[Row]:
    yield Row("lddw", WIDE_OPCODE, Operation.LDDW, 64, Legal.WRITTEN, 0, 0, Legal.IMM32, Group.BASE64, "5.4",
              "r{dst} = {imm64} ll", next_imm=Legal.IMM32)  # fmt: skip
    table = (  # RFC 9669's own words for what they stand for; what is unused in the second half must be 0
        (1, "lddw_map_fd", "map_by_fd({imm})", 0),
        (2, "lddw_map_value", "map_val(map_by_fd({imm})) {next_imm:signed}", Legal.IMM32),
        (3, "lddw_variable", "var_addr({imm})", 0),
        (4, "lddw_code", "code_addr({imm})", 0),
        (5, "lddw_map_index", "map_by_idx({imm})", 0),
        (6, "lddw_map_index_value", "map_val(map_by_idx({imm})) {next_imm:signed}", Legal.IMM32),
    )
    for src, name, text, next_imm in table:
        yield Row(name, WIDE_OPCODE, Operation.LDDW_REFERENCE, 64, Legal.WRITTEN, src, 0,
                  Legal.BRANCH if name == "lddw_code" else Legal.IMM32, Group.BASE64, "5.4",
                  f"r{{dst}} = {text} ll", next_imm=next_imm)  # fmt: skip


def _atomics() -> Iterator[Row]:
    table = ((Operation.ATOMIC_ADD, 0x00, "+="), (Operation.ATOMIC_OR, 0x40, "|="),
             (Operation.ATOMIC_AND, 0x50, "&="), (Operation.ATOMIC_XOR, 0xA0, "^="))  # fmt: skip
    for width, r, suffix in ((32, "w", "32_32"), (64, "r", "_64")):
        group, opcode = _GROUP["atomic"][width], _MODE_ATOMIC | _SIZES[width][0] | Class.STX
        address = "r{dst} {offset}"
        forms = [(Operation.ATOMIC_XCHG, 0xE1, f"{r}{{src}} = xchg{suffix}({address}, {r}{{src}})"),
                 (Operation.ATOMIC_CMPXCHG, 0xF1, f"{r}0 = cmpxchg{suffix}({address}, {r}0, {r}{{src}})")]  # fmt: skip
        for operation, imm, sign in table:
            fetch = Operation[operation.name.replace("_", "_FETCH_")]
            text = f"{fetch.name.lower()}((u{width} *)({address}), {r}{{src}})"
            forms += [(operation, imm, f"lock *(u{width} *)({address}) {sign} {r}{{src}}"),
                      (fetch, imm | 1, f"{r}{{src}} = {text}")]  # fmt: skip
        for operation, imm, syntax in forms:
            src = Legal.WRITTEN if syntax.startswith(f"{r}{{src}} =") else Legal.REGISTER
            yield Row(f"{operation.name.lower()}{width}", opcode, operation, width, Legal.REGISTER, src,
                      Legal.SIGNED16, imm, group, "5.3", syntax)  # fmt: skip


def _acquire_release() -> Iterator[Row]:
    """In the atomics' mode, told from them by imm; of 8 and 16 bits too."""
    for width, (size, letter) in _SIZES.items():
        opcode, r, pointer = _MODE_ATOMIC | size | Class.STX, "r" if width == 64 else "w", f"(u{width} *)"
        yield Row(f"load_acquire_{letter}", opcode, Operation.LOAD_ACQUIRE, width, Legal.WRITTEN, Legal.REGISTER,
                  Legal.SIGNED16, 0x100, Group.ACQUIRE_RELEASE, "",
                  f"{r}{{dst}} = load_acquire({pointer}(r{{src}} {{offset}}))")  # fmt: skip
        yield Row(f"store_release_{letter}", opcode, Operation.STORE_RELEASE, width, Legal.REGISTER, Legal.REGISTER,
                  Legal.SIGNED16, 0x110, Group.ACQUIRE_RELEASE, "",
                  f"store_release({pointer}(r{{dst}} {{offset}}), {r}{{src}})")  # fmt: skip


ROWS: tuple[Row, ...] = (*_arithmetic(), *_byte_swaps(), *_jumps(), *_memory(), *_wide_immediates(), *_atomics(),
                         *_acquire_release())  # fmt: skip

EXTENSIONS: tuple[Group, ...] = tuple(
    group for group in Group if not any(row.section for row in ROWS if row.group is group)
)
"""Groups that are not RFC 9669's: none of their rows has a section there."""

CALLS = (Operation.CALL_HELPER, Operation.CALL_LOCAL, Operation.CALL_BTF, Operation.CALLX, Operation.CALL_FIRMWARE)
"""They leave r0 to r5 to what they call."""

BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}

BY_OPCODE: dict[int, tuple[Row, ...]] = {
    opcode: tuple(row for row in ROWS if row.opcode == opcode) for opcode in sorted({row.opcode for row in ROWS})
}


def _discriminator(rows: tuple[Row, ...]) -> str | None:
    """The field that tells rows of one opcode apart: each has an exact integer there, all different."""
    for field in ("src", "offset", "imm"):
        values = {getattr(row, field) for row in rows}
        if len(values) == len(rows) > 1 and all(isinstance(value, int) for value in values):
            return field
    return None


DISCRIMINATOR: dict[int, str | None] = {opcode: _discriminator(rows) for opcode, rows in BY_OPCODE.items()}
"""For each opcode the name of the one field ("src", "offset" or "imm") whose exact value picks the row, or None where
the opcode has one row."""

DISCRIMINATOR_BITS = max(
    getattr(row, field).bit_length() for row in ROWS if (field := DISCRIMINATOR[row.opcode]) is not None
)
"""As many low bits of that field tell the rows apart; those above must be 0."""


def _refusal(field: str, legal: int | Legal | None, value: int | None) -> str | None:
    """Why `value` may not stand in a field that holds `legal`, or None if it may."""
    if legal is None or value is None:
        return None if legal is value is None else f"{field} must be {'absent' if legal is None else 'present'}"
    if isinstance(legal, int):
        return None if value == legal else f"{field} must be {legal}, not {value}"
    if legal in (Legal.REGISTER, Legal.WRITTEN):
        if not 0 <= value < REGISTERS:
            return f"{field} names r{value}, above r10"
        read_only = legal is Legal.WRITTEN and value == FRAME_POINTER
        return f"{field} may not be r10, which is read-only" if read_only else None
    if legal is Legal.FRAME and (value % FRAME_ALIGN or not 0 <= value <= STACK_BYTES):
        return f"{field} must be a frame size (a multiple of 16 up to 512), not {value}"
    bits = 16 if field == "offset" else 32
    return None if -1 << bits - 1 <= value < 1 << bits - 1 else f"{field} {value} does not fit {bits} bits"


def refusals(row: Row, instruction: Instruction) -> list[str]:
    """What in `instruction` the row forbids, a phrase for each field; empty if it is an instance of the row."""
    names = ("dst", "src", "offset", "imm", "next_imm")
    reasons = (_refusal(name, getattr(row, name), getattr(instruction, name)) for name in names)
    return [reason for reason in reasons if reason]


@lru_cache(1 << 16)  # a program says the same few things over and over, and each of a loader's passes asks
def find(instruction: Instruction) -> Row:
    """The row that `instruction` is an instance of. Raises BpfnicError: the unknown opcode, or the illegal field."""
    rows = BY_OPCODE.get(instruction.opcode)
    if rows is None:
        raise BpfnicError(f"unknown opcode 0x{instruction.opcode & 0xFF:02x}")
    if field := DISCRIMINATOR[instruction.opcode]:
        value = getattr(instruction, field)
        exact = {getattr(row, field): row for row in rows}
        if value not in exact:
            allowed = ", ".join(map(str, sorted(exact)))
            raise BpfnicError(f"opcode 0x{instruction.opcode:02x}: {field} must be one of {allowed}, not {value}")
        row = exact[value]
    else:
        (row,) = rows
    if reasons := refusals(row, instruction):
        raise BpfnicError(f"{row.name}: {reasons[0]}")
    return row
