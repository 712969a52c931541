"""States and instructions as Linux's log writes them (kernel: print_reg_state, print_bpf_insn)."""

from collections.abc import Iterable

from bpfnic.host.verifier.scalar import Scalar
from bpfnic.host.verifier.state import State
from bpfnic.host.verifier.values import (
    CONTEXT,
    FUNCTION,
    ITEM,
    MAP,
    MEMORY,
    META,
    NONE,
    NUMBER,
    PACKET,
    RECORD,
    STACK,
    VALUE,
    Held,
    Place,
)
from bpfnic.host.verifier.width import MASK, SMAX, SMIN, WORD_MASK, WORD_SMAX, WORD_SMIN
from bpfnic.spec import helpers, isa
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Operation, Row

_SIGNED_DECIMAL, _UNSIGNED_DECIMAL = (1 << 15) - 1, (1 << 16) - 1


def kind(held: Held) -> str:
    """`map_value_or_null`."""
    return held.kind.value + ("_or_null" if held.nullable else "")


def tnum(value: int, mask: int) -> str:
    if not mask:
        return f"{value:#x}" if value else "0"
    return f"({value:#x}; {mask:#x})"


def signed(number: int) -> str:
    return str(number) if -_SIGNED_DECIMAL - 1 <= number <= _SIGNED_DECIMAL else f"{number & MASK:#x}"


def unsigned(number: int) -> str:
    return str(number) if number <= _UNSIGNED_DECIMAL else f"{number:#x}"


def scalar(known: Scalar) -> list[str]:
    """What is known of a number, but for nothing."""
    bounds = (
        ("smin", known.smin, SMIN),
        ("smax", known.smax, SMAX),
        ("umin", known.umin, 0),
        ("umax", known.umax, MASK),
        ("smin32", known.wsmin, WORD_SMIN),
        ("smax32", known.wsmax, WORD_SMAX),
        ("umin32", known.wumin, 0),
        ("umax32", known.wumax, WORD_MASK),
    )
    names: dict[tuple[int, str], list[str]] = {}
    for name, value, nothing in bounds:
        if value != nothing:
            names.setdefault((value, name[1:4]), []).append(name)
    found = [f"{'='.join(group)}={_bound(value, group[0])}" for (value, _), group in names.items()]
    if known.mask != MASK:
        found.append(f"var_off={tnum(known.value, known.mask)}")
    return found


def _bound(value: int, name: str) -> str:
    if name[0] == "u":
        return unsigned(value)
    return f"{value & WORD_MASK:#x}" if name.endswith("32") and value < -_SIGNED_DECIMAL - 1 else signed(value)


def held(what: Held, function: int = 0, precise: bool = False) -> str:
    """One register: `pkt(off=14,r=34)`. `function`: the frame's number, of which stack pointers need no number;
    `precise`: its exact number is needed."""
    if what.kind is NUMBER:
        needed = "P" if precise else ""
        if what.constant:
            return needed + signed(what.number.smin)
        parts = [f"id={what.id}{f'{what.off:+d}' if what.off else ''}"] if what.id else []
        return f"{needed}scalar({','.join(parts + scalar(what.number))})"
    if what.kind is STACK:
        frame = f"[{what.frame}]" if what.frame != function else ""
        if what.number.mask:
            parts = [f"off={what.off}"] if what.off else []
            return f"fp{frame}({','.join(parts + scalar(what.number))})"
        return f"fp{frame}{what.off + what.number.smin}"
    parts = [f"id={what.id}"] if what.id else []
    if what.ref:
        parts.append(f"ref_obj_id={what.ref}")
    if what.map and what.kind in (MAP, VALUE, MEMORY):
        parts += [f"map={what.map.name}", f"ks={what.map.key_size}", f"vs={what.map.value_size}"]
    if what.kind is not NONE and what.off:
        parts.append(f"off={what.off}")
    if what.kind in (PACKET, META):
        parts.append(f"r={unsigned(what.range & MASK)}")
    if what.kind in (MEMORY, RECORD, ITEM) and not what.map:
        parts.append(f"sz={what.size}")
    if what.number.mask:
        parts += scalar(what.number)
    elif what.number.value and what.kind not in (CONTEXT, FUNCTION):
        parts.append(f"imm={signed(what.number.smin)}")
    name = "map_key" if what.kind is MEMORY and what.map else kind(what)
    return f"{name}({','.join(parts)})"


def place(what: Place, function: int = 0, precise: bool = False) -> str:
    if what.held is None:
        return what.bytes[::-1].replace("u", "?")
    rest = what.bytes.replace("s", "").replace("u", "?")[::-1]
    return f"{rest}{held(what.held, function, precise)}"


def state(of: State, number: int = -1, registers: Iterable[int] | None = None, places: Iterable[int] | None = None,
          precise: tuple[int, int] = (0, 0)) -> str:  # fmt: skip
    """A function's registers and stack, those asked for or all that hold anything: `R0=1 R10=fp0 fp-8=mmmmmmmm`.
    `precise`: registers and places whose exact numbers are needed, as bits."""
    frame = of.frames[number]
    parts = [f"frame{frame.number}:"] if frame.number else []
    for index in range(isa.REGISTERS) if registers is None else sorted(set(registers)):
        if frame.regs[index].kind is not NONE:
            parts.append(f"R{index}={held(frame.regs[index], frame.number, bool(precise[0] >> index & 1))}")
    for index in sorted(frame.stack if places is None else set(places)):
        what = frame.place(index)
        if what.held is not None or what.bytes != "uuuuuuuu":
            parts.append(f"fp-{8 * (index + 1)}={place(what, frame.number, bool(precise[1] >> index & 1))}")
    if of.refs:
        parts.append(f"refs={','.join(map(str, of.refs))}")
    if frame.kind != "call":
        parts.append("cb")
    return " ".join(parts)


# Instructions.

_SIZES = {8: "u8", 16: "u16", 32: "u32", 64: "u64"}
_SIGNS = {Operation.ADD: "+=", Operation.SUB: "-=", Operation.MUL: "*=", Operation.DIV: "/=", Operation.SDIV: "s/=",
          Operation.OR: "|=", Operation.AND: "&=", Operation.LSH: "<<=", Operation.RSH: ">>=", Operation.MOD: "%=",
          Operation.SMOD: "s%=", Operation.XOR: "^=", Operation.MOV: "=", Operation.ARSH: "s>>="}  # fmt: skip
_JUMPS = {Operation.JEQ: "==", Operation.JNE: "!=", Operation.JGT: ">", Operation.JGE: ">=", Operation.JLT: "<",
          Operation.JLE: "<=", Operation.JSET: "&", Operation.JSGT: "s>", Operation.JSGE: "s>=", Operation.JSLT: "s<",
          Operation.JSLE: "s<="}  # fmt: skip


def instruction(row: Row, of: Instruction, reference: str | None = None) -> str:
    """`(71) r0 = *(u8 *)(r1 +0)`; `reference`: what a 64-bit immediate stands for."""
    return f"({of.opcode:02x}) {_operation(row, of, reference)}"


def _operation(row: Row, of: Instruction, reference: str | None) -> str:
    operation, r = row.operation, "r" if row.width == 64 else "w"
    dst, src = f"{r}{of.dst}", f"{r}{of.src}"
    cell = f"*({_SIZES.get(row.width, 'u64')} *)(r{{}} {of.offset:+d})"
    match row.instruction_class:
        case Class.ALU | Class.ALU64:
            if operation in (Operation.LE, Operation.BE, Operation.BSWAP):
                return f"r{of.dst} = {operation.name.lower()}{row.width} r{of.dst}"
            if operation is Operation.NEG:
                return f"{dst} = -{dst}"
            if operation is Operation.MOVSX:
                return f"{dst} = (s{of.offset}){src}"
            return f"{dst} {_SIGNS[operation]} {src if row.register_operand else of.imm}"
        case Class.LDX:
            return f"r{of.dst} = {cell.format(of.src).replace('u', 's', 1) if operation is Operation.LDXS else cell.format(of.src)}"  # noqa: E501
        case Class.ST:
            return f"{cell.format(of.dst)} = {of.imm}"
        case Class.STX:
            return _store(row, of, cell)
        case Class.LD:
            if operation in (Operation.LD_ABS, Operation.LD_IND):
                index = f"r{of.src} + {of.imm}" if operation is Operation.LD_IND else str(of.imm)
                return f"r0 = *({_SIZES[row.width]} *)skb[{index}]"
            return f"r{of.dst} = {reference or f'{of.imm64:#x}'}"
    match operation:
        case Operation.JA:
            return f"goto pc{of.offset:+d}" if of.opcode == 0x05 else f"gotol pc{of.imm:+d}"
        case Operation.MAY_GOTO:
            return f"may_goto pc{of.offset:+d}"
        case Operation.EXIT:
            return "exit"
        case Operation.CALL_HELPER:
            helper = helpers.BY_NUMBER.get(of.imm)
            return f"call bpf_{helper.name}#{of.imm}" if helper else f"call unknown#{of.imm}"
        case Operation.CALL_LOCAL:
            return f"call pc{of.imm:+d}"
        case Operation.CALL_BTF:
            return f"call {reference or 'kernel-function'}#{of.imm}"
        case Operation.CALLX:
            return f"callx r{of.dst}"
    other = src if row.register_operand else f"{of.imm & (MASK if r == 'r' and of.imm < 0 else WORD_MASK):#x}"
    return f"if {dst} {_JUMPS[operation]} {other} goto pc{of.offset:+d}"


def _store(row: Row, of: Instruction, cell: str) -> str:
    operation, r = row.operation, "r" if row.width == 64 else "w"
    address = f"({_SIZES[row.width]} *)(r{of.dst} {of.offset:+d})"
    if operation is Operation.STX:
        return f"{cell.format(of.dst)} = r{of.src}"
    if operation is Operation.LOAD_ACQUIRE:
        return f"r{of.dst} = load_acquire(({_SIZES[row.width]} *)(r{of.src} {of.offset:+d}))"
    if operation is Operation.STORE_RELEASE:
        return f"store_release({address}, r{of.src})"
    name = operation.name.removeprefix("ATOMIC_").lower()
    if operation is Operation.ATOMIC_CMPXCHG:
        return f"r0 = atomic{'64' if r == 'r' else ''}_cmpxchg({address}, r0, r{of.src})"
    if operation is Operation.ATOMIC_XCHG:
        return f"r{of.src} = atomic{'64' if r == 'r' else ''}_xchg({address}, r{of.src})"
    if name.startswith("fetch_"):
        return f"r{of.src} = atomic{'64' if r == 'r' else ''}_{name}({address}, r{of.src})"
    sign = {"add": "+=", "or": "|=", "and": "&=", "xor": "^="}[name]
    return f"lock *{address} {sign} r{of.src}"
