"""From an instruction to its control word: one word a row of `isa.ROWS`, one a helper."""

from functools import reduce
from itertools import combinations
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core import steps
from bpfnic.hdl.core.control import (
    LOG2_BYTES,
    Access,
    Addend,
    Condition,
    Control,
    FieldRule,
    Flow,
    Immediate,
    Kind,
    Logic,
    Register,
    RegisterRule,
    Rules,
    Step,
    Unit,
)
from bpfnic.hdl.core.rom import rom
from bpfnic.hdl.core.threads import HelperNumber
from bpfnic.hdl.interfaces import Service
from bpfnic.hdl.mapinterfaces import MapCall, MapOperation
from bpfnic.spec import addresses, engine, helpers, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.isa import Legal, Operation, Row
from bpfnic.spec.metadata import Metadata

Instruction = data.StructLayout({"opcode": 8, "dst": 4, "src": 4, "offset": 16, "imm": 32})
"""A slot of the program store (RFC 9669 section 3.1)."""

_SUM = {
    Operation.ADD: {},
    Operation.SUB: {"invert": 1, "carry": 1},
    Operation.NEG: {"invert": 1, "carry": 1, "blank": 1, "right": Register.DST},
}
_LOGIC = {
    Operation.AND: Logic.AND,
    Operation.OR: Logic.OR,
    Operation.XOR: Logic.XOR,
    Operation.MOV: Logic.RIGHT,
    Operation.MOVSX: Logic.RIGHT,
}
_SHIFT = {
    Operation.LSH: {"upward": 1},
    Operation.RSH: {},
    Operation.ARSH: {"arithmetic": 1, "signed": 1},
}
_DIVISION = {
    Operation.DIV: {},
    Operation.SDIV: {"signed": 1},
    Operation.MOD: {"modulo": 1},
    Operation.SMOD: {"signed": 1, "modulo": 1},
}
# left - right has a carry where left >= right; left - right - 1 where left > right.
_JUMP = {
    Operation.JEQ: {"condition": Condition.ZERO, "logic": Logic.XOR},
    Operation.JNE: {"condition": Condition.ZERO, "logic": Logic.XOR, "negate": 1},
    Operation.JSET: {"condition": Condition.ZERO, "logic": Logic.AND, "negate": 1},
    Operation.JGT: {"condition": Condition.CARRY},
    Operation.JGE: {"condition": Condition.CARRY, "carry": 1},
    Operation.JLT: {"condition": Condition.CARRY, "carry": 1, "negate": 1},
    Operation.JLE: {"condition": Condition.CARRY, "negate": 1},
    Operation.JSGT: {"condition": Condition.CARRY_SIGNED, "signed": 1},
    Operation.JSGE: {"condition": Condition.CARRY_SIGNED, "signed": 1, "carry": 1},
    Operation.JSLT: {"condition": Condition.CARRY_SIGNED, "signed": 1, "carry": 1, "negate": 1},
    Operation.JSLE: {"condition": Condition.CARRY_SIGNED, "signed": 1, "negate": 1},
}
_ATOMIC = {
    Operation.ATOMIC_ADD: MapOperation.ADD,
    Operation.ATOMIC_OR: MapOperation.OR,
    Operation.ATOMIC_AND: MapOperation.AND,
    Operation.ATOMIC_XOR: MapOperation.XOR,
    Operation.ATOMIC_FETCH_ADD: MapOperation.ADD,
    Operation.ATOMIC_FETCH_OR: MapOperation.OR,
    Operation.ATOMIC_FETCH_AND: MapOperation.AND,
    Operation.ATOMIC_FETCH_XOR: MapOperation.XOR,
    Operation.ATOMIC_XCHG: MapOperation.XCHG,
    Operation.ATOMIC_CMPXCHG: MapOperation.CMPXCHG,
}

def _service(service: Service, **operands: Register) -> dict:
    return {"kind": Kind.SERVICE, "left": Register.R2, "addend": Addend.ZERO, "unit": Unit.SUM, "size": 3,
            "right": Register.R1, "side": 1, "service": service, "write": 1, "to": Register.R0} | operands  # fmt: skip


def _word(call: MapCall, word: Register, handle: Register = Register.R1, **more) -> dict:
    """The first word that a call sends, and with it its map's handle; it may be the last."""
    return {"kind": Kind.WORD, "call": call, "left": word, "addend": Addend.ZERO, "unit": Unit.SUM, "size": 3,
            "right": handle, "side": 1, "write": 1, "to": Register.R0, "then": Step.ENGINE} | more  # fmt: skip


def _entry(call: MapCall, index: Register, handle: Register) -> dict:
    return _word(call, index, handle, to=Register.WORD, then=Step.ENTRY)


def _sample(immediate: Immediate, **more) -> dict:
    return {"immediate": immediate, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "size": 3, "write": 1,
            "to": Register.R0, "sampled": 1} | more  # fmt: skip


def _lock(**work) -> dict:
    return {"left": Register.R1, "addend": Addend.ZERO, "natural": 1, "in_maps": 1, "size": 2, "unit": Unit.LOGIC,
            "logic": Logic.RIGHT, "write": 1} | work  # fmt: skip


_HELPERS = {
    "map_lookup_elem": steps.KEY | {"call": MapCall.LOOKUP},
    "map_delete_elem": steps.KEY | {"call": MapCall.DELETE},
    "map_update_elem": _word(MapCall.UPDATE, Register.R4, flags=1, then=Step.KEY),
    "map_push_elem": _word(MapCall.PUSH, Register.R3, flags=1),
    "map_pop_elem": _word(MapCall.POP, Register.R1),
    "map_peek_elem": _word(MapCall.PEEK, Register.R1),
    "ringbuf_reserve": _word(MapCall.RESERVE, Register.R3, flags=1, then=Step.SIZE),
    "ringbuf_output": _word(MapCall.OUTPUT, Register.R4, flags=1, then=Step.SIZE),
    "ringbuf_submit": _word(MapCall.SUBMIT, Register.R2, flags=1),
    "ringbuf_discard": _word(MapCall.DISCARD, Register.R2, flags=1),
    "ringbuf_query": _word(MapCall.QUERY, Register.R2),
    "perf_event_output": _word(MapCall.EVENT, Register.R3, Register.R2, flags=1, then=Step.SIZE),
    "spin_lock": _lock(access=Access.ATOMIC, operation=MapOperation.XCHG, immediate=Immediate.ONE, to=Register.WORD,
                       then=Step.TRY),
    "spin_unlock": _lock(access=Access.STORE, immediate=Immediate.ZERO, to=Register.R0),
    "tail_call": _entry(MapCall.TAIL, Register.R3, Register.R2),
    "redirect_map": _entry(MapCall.REDIRECT, Register.R2, Register.R1),
    "ktime_get_ns": _sample(Immediate.TIME),
    "ktime_get_boot_ns": _sample(Immediate.TIME),
    "ktime_get_coarse_ns": _sample(Immediate.TIME),
    "get_prandom_u32": _sample(Immediate.RANDOM),
    "get_smp_processor_id": _sample(Immediate.CPU, sampled=0),  # the recording has the CPU anyway
    "csum_diff": steps.CHECKSUM,
    "redirect": _service(Service.REDIRECT),
    "clone_redirect": _service(Service.CLONE_REDIRECT, left=Register.R3, right=Register.R2),
    "xdp_adjust_head": _service(Service.ADJUST_HEAD),
    "xdp_adjust_tail": _service(Service.ADJUST_TAIL),
    "xdp_adjust_meta": _service(Service.ADJUST_META),
}  # fmt: skip

_METADATA = {
    Metadata.RX_TIMESTAMP: _service(Service.RX_TIMESTAMP) | {"sampled": 1},
    Metadata.RX_HASH: _service(Service.RX_HASH),
    Metadata.RX_VLAN_TAG: _service(Service.RX_VLAN_TAG),
}

_WALK = {helpers.MAP_WALK.number: _word(MapCall.WALK, Register.R2, sampled=1)}

_RETURN_FIRST = {"left": Register.R1, "addend": Addend.ZERO, "unit": Unit.SUM, "size": 3, "write": 1,
                 "to": Register.R0}  # fmt: skip


def _helpers(config: NicConfig) -> dict[int, dict]:
    """The words of the helpers that there are, by number."""
    if config.conformance:
        return {helpers.RETURN_FIRST: _RETURN_FIRST}
    words = {helpers.BY_NAME[name].number: word for name, word in _HELPERS.items()} | _METADATA | _WALK
    return {number: words[number] for number in sorted(config.helpers)}


def _work(row: Row) -> dict:
    """What the row does; what it checks is `_rules`."""
    operation, log2 = row.operation, LOG2_BYTES.get(row.width, 0)
    if row.group not in engine.GROUPS:
        return {"cause": Cause.UNSUPPORTED}
    if operation is Operation.LDDW_REFERENCE:  # the loader makes every one an LDDW
        return {"cause": Cause.ILLEGAL_INSTRUCTION}
    if operation in (Operation.CALL_BTF, Operation.CALL_HELPER):  # helpers that there are: Decoder
        return {"cause": Cause.HELPER}

    operands = {
        "left": Register.DST,
        "right": Register.SRC,
        "immediate": Immediate.NONE if row.register_operand else Immediate.IMM,
        "narrow": int(row.width == 32),
    }
    result = {"write": 1, "to": Register.DST, "size": log2}
    if operation in _SUM:
        work = operands | result | {"unit": Unit.SUM}
        return work | ({"immediate": Immediate.NONE} if operation is Operation.NEG else {}) | _SUM[operation]
    if operation in _LOGIC:
        work = operands | result | {"unit": Unit.LOGIC, "logic": _LOGIC[operation]}
        if operation is Operation.MOVSX:
            work |= {"size": LOG2_BYTES[row.offset], "extend": 1, "cut": int(row.width == 32)}
        return work
    if operation in _SHIFT:
        return operands | result | {"unit": Unit.SHIFT} | _SHIFT[operation]
    if operation is Operation.MUL:
        return operands | result | {"multiply": 1}
    if operation in _DIVISION:
        return operands | result | _DIVISION[operation] | {"kind": Kind.DIVIDE, "addend": Addend.ZERO,
                                                           "unit": Unit.SUM, "side": 1}  # fmt: skip
    if operation is Operation.LE:  # the words are little-endian: only cut
        return operands | result | {"narrow": 0, "immediate": Immediate.ZERO, "unit": Unit.SUM}
    if operation in (Operation.BE, Operation.BSWAP):
        return operands | result | {"narrow": 0, "immediate": Immediate.SWAP, "unit": Unit.SHIFT, "swap": 1}
    if operation is Operation.LDDW:
        return result | {"immediate": Immediate.WIDE, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "wide": 1}

    if operation in _JUMP:
        return operands | {"flow": Flow.JUMP, "invert": 1} | _JUMP[operation]
    if operation is Operation.JA:
        return {"flow": Flow.JUMP, "far": int(row.imm is Legal.BRANCH)}
    if operation is Operation.MAY_GOTO:
        return {"flow": Flow.JUMP, "condition": Condition.LOW}
    if operation is Operation.CALLX:
        return {"kind": Kind.CALLX, "left": Register.DST, "addend": Addend.ZERO, "then": Step.HELPER}
    if operation is Operation.CALL_LOCAL:
        return {"flow": Flow.CALL, "far": 1, "immediate": Immediate.LINK, "unit": Unit.LOGIC, "logic": Logic.RIGHT,
                "write": 1, "to": Register.LINK, "size": 3}  # fmt: skip
    if operation is Operation.CALL_FIRMWARE:
        return {"flow": Flow.FIRMWARE, "far": 1, "immediate": Immediate.LINK, "unit": Unit.LOGIC, "logic": Logic.RIGHT,
                "write": 1, "to": Register.FIRMWARE_LINK, "size": 3}  # fmt: skip
    if operation is Operation.EXIT:
        return {"flow": Flow.EXIT, "left": Register.LINK, "addend": Addend.ZERO, "unit": Unit.SUM, "size": 3}

    access = {"addend": Addend.OFFSET, "aligned": 1, "size": log2, "logic": Logic.RIGHT}
    if operation in (Operation.LOAD_ACQUIRE, Operation.STORE_RELEASE) or operation in _ATOMIC:
        access["natural"] = 1
    if operation in (Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE):
        return result | access | {"access": Access.LOAD, "left": Register.SRC,
                                  "extend": int(operation is Operation.LDXS)}  # fmt: skip
    if operation in (Operation.LD_ABS, Operation.LD_IND):
        return {"in_packet": 1, "access": Access.LOAD, "left": Register.SRC, "immediate": Immediate.IMM,
                "blank": int(operation is Operation.LD_ABS), "size": log2, "write": 1, "to": Register.WORD,
                "then": Step.SWAP}  # fmt: skip
    moved = {"left": Register.DST, "right": Register.SRC, "unit": Unit.LOGIC}
    if operation in (Operation.ST, Operation.STX, Operation.STORE_RELEASE):
        immediate = Immediate.IMM if operation is Operation.ST else Immediate.NONE
        return access | moved | {"access": Access.STORE, "immediate": immediate}
    assert operation in _ATOMIC, f"the core does not know what {row.name} does"
    fetch = {}
    if row.src is Legal.WRITTEN:
        fetch = {"write": 1, "to": Register.SRC}
    if operation is Operation.ATOMIC_CMPXCHG:  # the first of its two passes; steps.py has the other
        return {"right": Register.R0, "side": 1, "size": log2, "operation": _ATOMIC[operation], "then": Step.EXCHANGE}
    return access | moved | fetch | {"access": Access.ATOMIC, "operation": _ATOMIC[operation]}


def _rules(row: Row) -> dict:
    """What the fields may hold, beyond the one that told this row from others of its opcode."""
    chosen_by = isa.DISCRIMINATOR[row.opcode]

    def register(name: str) -> RegisterRule:
        legal = getattr(row, name)
        if name == chosen_by:
            return RegisterRule.ANY
        assert legal in (0, Legal.REGISTER, Legal.WRITTEN), f"{row.name}: {name}"
        return {Legal.REGISTER: RegisterRule.READ, Legal.WRITTEN: RegisterRule.WRITTEN}.get(legal, RegisterRule.ZERO)

    def number(name: str) -> FieldRule:
        legal = getattr(row, name)
        if name == chosen_by:
            return FieldRule.CHOSEN
        if legal is Legal.FRAME:
            return FieldRule.FRAME
        assert legal == 0 or isinstance(legal, Legal), f"{row.name}: {name}"
        return FieldRule.ANY if isinstance(legal, Legal) else FieldRule.ZERO

    return {"dst": register("dst"), "src": register("src"), "offset": number("offset"), "imm": number("imm")}


class Decoder(Component):
    """Combinational.

    Parameters
    ----------
    config : which helpers there are.

    Members
    -------
    instruction : In(Instruction)
    again, number : it is the later pass of a callx, which calls the helper `number`.
    control : what its first pass does. `cause` is ILLEGAL_INSTRUCTION where the opcode, or the field that tells rows of
        one opcode apart, is unknown.
    rules : what `illegal` checks.
    """

    instruction: In(Instruction)
    again: In(1)
    number: In(HelperNumber)
    control: Out(Control)
    rules: Out(Rules)

    def __init__(self, config: NicConfig):
        self._helpers = _helpers(config)
        super().__init__()

    def elaborate(self, platform) -> Module:
        m = Module()
        opcode = self.instruction.opcode
        nothing = Control.const({}), Rules.const({})
        unknown = Control.const({"cause": Cause.ILLEGAL_INSTRUCTION}), nothing[1]
        # What the opcode tells, what another field tells beside it, and what a helper's number tells: all at once, each
        # nothing where it has no say, for speed. Of the field's bits those count that tell the opcode's rows apart;
        # where the others are no row's, the cause is told beside whatever it looks like.
        told, chosen = {}, []
        for code, rows in isa.BY_OPCODE.items():
            field = isa.DISCRIMINATOR[code]
            if field is None:
                told[code] = self._words(rows[0])
                continue
            told[code] = nothing
            value, here = getattr(self.instruction, field)[: isa.DISCRIMINATOR_BITS], opcode == code
            numbers = [getattr(row, field) for row in rows]
            bits = _telling_bits(numbers)
            for row, number in zip(rows, numbers, strict=True):
                traps = "cause" in _work(row)  # then no other number may look like it
                hit = value == number if traps else Cat(value[bit] == (number >> bit & 1) for bit in bits).all()
                chosen.append((here & hit, self._words(row)))
            chosen.append((here & ~Cat(value == number for number in numbers).any(), unknown))
        of_opcode = [told.get(code, unknown) for code in range(256)]
        by_opcode, rules_by_opcode = (
            self._of_opcode(m, name, [words[which] for words in of_opcode])
            for which, name in enumerate(("control", "rules"))
        )
        by_field, rules_by_field = (_either(m, [(hit, words[which]) for hit, words in chosen]) for which in range(2))

        call, imm, bits = isa.BY_NAME["call_helper"], self.instruction.imm, len(self.number.low)
        calls = self.again | ((opcode == call.opcode) & (self.instruction.src == call.src))
        missing = Control.const({"cause": Cause.HELPER})
        words = [Control.const(self._helpers[each]) if each in self._helpers else missing for each in range(1 << bits)]
        helper = rom(m, "control_of_helper", words, Mux(self.again, self.number.low, imm[:bits]))
        above = Mux(self.again, self.number.above, imm[bits:].any())
        by_helper = Mux(calls, Mux(above, missing, helper), 0)
        # A callx, in whose second pass its helper alone says what is done, is told by its opcode.
        of_instruction = Mux(self.again, 0, by_opcode)
        m.d.comb += [
            self.control.eq(of_instruction | by_field | by_helper),
            self.rules.eq(rules_by_opcode | rules_by_field),
        ]
        return m

    def _of_opcode(self, m: Module, name: str, words: list[data.Const]) -> Value:
        """The opcode's word: found for each class, of which one is chosen then (RFC 9669 section 3: the lower 3
        bits)."""
        of_class = []
        for number in range(8):
            word = rom(m, f"{name}_of_class_{number}", words[number::8], self.instruction.opcode[3:])
            of_class.append(Mux(self.instruction.opcode[:3] == number, word.as_value(), 0))
        return reduce(or_, of_class)

    def _words(self, row: Row) -> tuple:
        """Of a call of a helper, which that one says more of, the rules alone."""
        of_helper = row is isa.BY_NAME["call_helper"]
        return Control.const({} if of_helper else _work(row)), Rules.const(_rules(row))


def _telling_bits(numbers: list[int]) -> tuple[int, ...]:
    """As few bits as tell the numbers apart."""
    return next(bits for count in range(isa.DISCRIMINATOR_BITS + 1)
                for bits in combinations(range(isa.DISCRIMINATOR_BITS), count)
                if len({tuple(number >> bit & 1 for bit in bits) for number in numbers}) == len(numbers))  # fmt: skip


def _either(m: Module, words: list[tuple[Value, data.Const]]) -> Signal:
    """The word whose condition holds, of which one does at most; else 0."""
    numbers = [(condition, Const.cast(word).value) for condition, word in words]
    result = Signal(len(Const.cast(words[0][1])))
    for bit in range(len(result)):
        m.d.comb += result[bit].eq(Cat(condition for condition, number in numbers if number >> bit & 1).any())
    return result


def illegal(instruction, rules: Rules):
    """Whether a field holds what its rule forbids. instruction : Instruction."""

    def register(value, rule):
        return (
            ((rule == RegisterRule.ZERO) & value.any())
            | ((rule != RegisterRule.ANY) & (value > isa.FRAME_POINTER))
            | ((rule == RegisterRule.WRITTEN) & (value == isa.FRAME_POINTER))
        )

    def number(value, rule):
        low, high = value[: isa.DISCRIMINATOR_BITS].any(), value[isa.DISCRIMINATOR_BITS :].any()
        return ((rule == FieldRule.ZERO) & (low | high)) | ((rule == FieldRule.CHOSEN) & high)

    offset = instruction.offset
    frame = (offset % addresses.FRAME_ALIGN).any() | (offset > addresses.STACK_BYTES)
    return (
        register(instruction.dst, rules.dst)
        | register(instruction.src, rules.src)
        | number(offset, rules.offset)
        | number(instruction.imm, rules.imm)
        | ((rules.offset == FieldRule.FRAME) & frame)
    )
