"""Micro steps: instructions that take several passes, and what each pass is.

docs/hardware.md, "Micro steps", has the table. A thread's step is part of its state; `skip` is another: the bytes that
an access has done so far which crosses a row of map memory, or is a copy's to a local window. What is left is the same
pass once more, at `skip` bytes higher.
"""

from amaranth import Module, Mux, Signal, Value

from bpfnic.hdl.core.control import (
    LOG2_BYTES,
    Access,
    Addend,
    Condition,
    Control,
    Flow,
    Immediate,
    Kind,
    Logic,
    Register,
    Step,
    Sum,
    Unit,
)
from bpfnic.hdl.core.rom import rom
from bpfnic.hdl.interfaces import Service
from bpfnic.hdl.mapinterfaces import MapCall, MapOperation
from bpfnic.spec.causes import Cause

KEY = {"kind": Kind.KEY, "left": Register.R2, "addend": Addend.PROGRESS, "access": Access.LOAD, "size": LOG2_BYTES[64],
       "logic": Logic.RIGHT, "right": Register.R1, "side": 1, "write": 1, "to": Register.R0,
       "then": Step.ENGINE}  # fmt: skip
"""Reads 8 bytes of a helper's key, or what is left of it: r1, the handle, says how long it is."""

_SEND = {"kind": Kind.KEY, "left": Register.WORD, "addend": Addend.ZERO, "unit": Unit.SUM, "size": LOG2_BYTES[64],
         "right": Register.R1, "write": 1, "to": Register.R0, "then": Step.ENGINE}  # fmt: skip

# Further words of a call, whose handle is beside the queue since the first one. Who says INSERT says no more.
_INSERT = {"kind": Kind.WORD, "size": LOG2_BYTES[64], "write": 1, "to": Register.R0, "then": Step.ENGINE}
_SIZE = _INSERT | {"addend": Addend.ZERO, "unit": Unit.SUM}
# The first 8 bytes of the context: data and data_end.
_BOUNDS = _INSERT | {"blank": 1, "immediate": Immediate.CONTEXT, "addend": Addend.RIGHT, "access": Access.LOAD}

_LOAD = {"kind": Kind.LOAD, "addend": Addend.PROGRESS, "access": Access.LOAD, "size": LOG2_BYTES[64],
         "logic": Logic.RIGHT, "write": 1, "to": Register.WORD, "then": Step.STORE}  # fmt: skip
# r3 has an event's flags, which say how many bytes of the packet it takes.
_LOAD_PACKET = _LOAD | {"blank": 1, "in_packet": 1, "right": Register.R3, "then": Step.STORE_PACKET}

_STORE = {"kind": Kind.STORE, "left": Register.TARGET, "right": Register.WORD, "addend": Addend.PROGRESS,
          "access": Access.STORE, "size": LOG2_BYTES[64], "unit": Unit.LOGIC, "logic": Logic.RIGHT,
          "to": Register.R0, "then": Step.LOAD}  # fmt: skip
_STORE_PACKET = _STORE | {"then": Step.LOAD_PACKET}

_ADVANCE = {"kind": Kind.ADVANCE, "left": Register.TARGET, "addend": Addend.SIZE, "unit": Unit.SUM,
            "size": LOG2_BYTES[64], "right": Register.R3, "write": 1, "to": Register.TARGET,
            "then": Step.LOAD_PACKET}  # fmt: skip

# The lock of a value, around its update. Each try counts against the budget.
_LOCK = {"left": Register.TARGET, "addend": Addend.LOCK, "access": Access.ATOMIC, "operation": MapOperation.XCHG,
         "size": LOG2_BYTES[32], "immediate": Immediate.ONE, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1,
         "to": Register.WORD, "then": Step.TRY_COPY}  # fmt: skip
_TRY_COPY = {"left": Register.WORD, "immediate": Immediate.ZERO, "logic": Logic.OR, "condition": Condition.ZERO,
             "then": Step.LOCK}  # fmt: skip
_UNLOCK = {"kind": Kind.RESULT, "left": Register.TARGET, "addend": Addend.LOCK, "access": Access.STORE,
           "size": LOG2_BYTES[32], "immediate": Immediate.ZERO, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1,
           "to": Register.R0}  # fmt: skip

_RESULT = {"kind": Kind.RESULT, "left": Register.TARGET, "addend": Addend.ZERO, "access": Access.LOAD,
           "size": LOG2_BYTES[32], "logic": Logic.RIGHT, "write": 1, "to": Register.R0}  # fmt: skip

_EXCHANGE = {"access": Access.ATOMIC, "operation": MapOperation.CMPXCHG, "addend": Addend.OFFSET, "natural": 1,
             "left": Register.DST, "right": Register.SRC, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1,
             "to": Register.R0}  # fmt: skip

_ENTRY = {"left": Register.TARGET, "addend": Addend.ZERO, "access": Access.LOAD, "size": LOG2_BYTES[32],
          "logic": Logic.RIGHT, "write": 1, "to": Register.WORD, "then": Step.ARRIVE}  # fmt: skip

# WORD is the entry, or the engine's 0.
_JUMP = {"flow": Flow.TAIL, "left": Register.WORD, "addend": Addend.ZERO, "immediate": Immediate.CONTEXT,
         "unit": Unit.LOGIC, "logic": Logic.RIGHT, "size": LOG2_BYTES[64], "write": 1, "to": Register.R1}  # fmt: skip

_REDIRECT = {"kind": Kind.SERVICE, "service": Service.REDIRECT_MAP, "left": Register.R3, "addend": Addend.ZERO,
             "unit": Unit.SUM, "size": LOG2_BYTES[64], "right": Register.WORD, "side": 1, "write": 1,
             "to": Register.R0}  # fmt: skip

# A local atomic's first pass (or EXCHANGE) has checked the address and put the old value into WORD. What of these three
# depends on the instruction is in this_pass.
_COMPUTE = {"left": Register.WORD, "write": 1, "to": Register.TARGET, "size": LOG2_BYTES[64], "then": Step.FETCH}
_PUT = {"left": Register.DST, "addend": Addend.OFFSET, "access": Access.STORE, "unit": Unit.LOGIC,
        "logic": Logic.RIGHT, "then": Step.FETCH}  # fmt: skip
_FETCH = {"left": Register.DST, "addend": Addend.OFFSET, "right": Register.WORD, "unit": Unit.LOGIC,
          "logic": Logic.RIGHT}  # fmt: skip
_CALL = {"flow": Flow.CALLX, "left": Register.DST, "addend": Addend.ZERO, "immediate": Immediate.LINK,
         "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1, "to": Register.LINK, "size": LOG2_BYTES[64]}  # fmt: skip

# bpf_csum_diff: r1 and r3 point at bytes, of which r2 and r4 say how many; r5 is the seed. What is read from map memory
# goes to the checksum unit in a pass of its own.
CHECKSUM = {"sum": Sum.START, "right": Register.R2, "then": Step.FROM}
_FROM = {"kind": Kind.SUM, "sum": Sum.WORD, "left": Register.R1, "right": Register.R2, "addend": Addend.PROGRESS,
         "access": Access.LOAD, "size": LOG2_BYTES[64], "logic": Logic.RIGHT, "write": 1, "to": Register.R0,
         "then": Step.FROM}  # fmt: skip
_TO = _FROM | {"left": Register.R3, "right": Register.R4, "then": Step.TO}
_SENT = {"left": Register.WORD, "addend": Addend.ZERO, "unit": Unit.SUM, "access": Access.NONE}
_TURN = {"sum": Sum.TURN, "left": Register.R5, "addend": Addend.ZERO, "unit": Unit.SUM, "right": Register.R4,
         "size": LOG2_BYTES[64], "write": 1, "to": Register.R0, "then": Step.TO}  # fmt: skip

_TRY = {"left": Register.WORD, "immediate": Immediate.ZERO, "logic": Logic.OR, "condition": Condition.ZERO, "write": 1,
        "to": Register.R0, "size": LOG2_BYTES[64]}  # fmt: skip

_SWAP = {"left": Register.WORD, "immediate": Immediate.SWAP_LOADED, "unit": Unit.SHIFT, "swap": 1, "write": 1,
         "to": Register.R0, "size": LOG2_BYTES[64]}  # fmt: skip

# The adder has the link, the result is 0.
_LEAVE = {"flow": Flow.EXIT, "left": Register.LINK, "addend": Addend.ZERO, "unit": Unit.NONE, "write": 1,
          "to": Register.R0, "size": LOG2_BYTES[64]}  # fmt: skip


_WORDS = {
    Step.KEY: KEY,
    Step.SEND: _SEND,
    Step.SIZE: _SIZE,
    Step.BOUNDS: _BOUNDS,
    Step.LOAD: _LOAD,
    Step.STORE: _STORE,
    Step.ADVANCE: _ADVANCE,
    Step.LOAD_PACKET: _LOAD_PACKET,
    Step.STORE_PACKET: _STORE_PACKET,
    Step.INSERT: _INSERT,
    Step.RESULT: _RESULT,
    Step.NO_KEY: {"cause": Cause.MEMORY_ACCESS},
    Step.NO_MAP: {"cause": Cause.MAP},
    Step.ENTRY: _ENTRY,
    Step.JUMP: _JUMP,
    Step.REDIRECT: _REDIRECT,
    Step.CALL: _CALL,
    Step.LOCK: _LOCK,
    Step.TRY_COPY: _TRY_COPY,
    Step.UNLOCK: _UNLOCK,
    Step.TRY: _TRY,
    Step.SWAP: _SWAP,
    Step.LEAVE: _LEAVE,
    Step.FROM: _FROM,
    Step.SEND_FROM: _FROM | _SENT,
    Step.TURN: _TURN,
    Step.TO: _TO,
    Step.SEND_TO: _TO | _SENT,
    Step.EXCHANGE: _EXCHANGE,
    Step.COMPUTE: _COMPUTE,
    Step.PUT: _PUT,
    Step.FETCH: _FETCH,
}


def turns_out(m: Module, step: Step, call: MapCall, engine_says) -> Signal:
    """Which step a thread's pass is, INSTRUCTION where it begins one.

    step : the thread's. call : of the engine, that it has under way. engine_says : what its last EngineAnswer was
    (answers.EngineSays).
    """
    found = Signal(Step, name="turned_out")
    arrived = Mux(call == MapCall.REDIRECT, Step.REDIRECT, Step.JUMP)
    m.d.comb += found.eq(step)
    with m.Switch(step):
        with m.Case(Step.ENGINE):
            with m.If(engine_says.trap):
                m.d.comb += found.eq(Step.NO_MAP)
            with m.Elif(~engine_says.copy):
                m.d.comb += found.eq(Step.INSTRUCTION)
            with m.Elif(call == MapCall.LOOKUP):
                m.d.comb += found.eq(Step.RESULT)
            with m.Elif(engine_says.locked):
                m.d.comb += found.eq(Step.LOCK)
            with m.Elif(engine_says.empty):
                m.d.comb += found.eq(Step.ADVANCE)
            with m.Else():
                m.d.comb += found.eq(Step.LOAD)
        with m.Case(Step.NO_KEY):
            with m.If(engine_says.trap):
                m.d.comb += found.eq(Step.NO_MAP)
        with m.Case(Step.ENTRY):
            with m.If(engine_says.trap):
                m.d.comb += found.eq(Step.NO_MAP)
            with m.Elif(~engine_says.copy):
                m.d.comb += found.eq(arrived)
        with m.Case(Step.ARRIVE):
            m.d.comb += found.eq(arrived)
    return found


def micro_pass(m: Module, step: Step, call: MapCall) -> Control:
    """The control word of a step (see turns_out), with whatever call of the engine the thread has under way."""
    control, call = Signal(Control, name="micro"), Value.cast(call)
    takes = call.matches(MapCall.POP, MapCall.PEEK)  # what is copied comes from map memory
    of_step = {each.value: word for each, word in _WORDS.items()}
    words = [Control.const(of_step.get(each, {})) for each in range(1 << len(Value.cast(step)))]
    m.d.comb += [
        control.eq(rom(m, "control_of_step", words, Value.cast(step))),
        control.call.eq(call),
    ]
    with m.Switch(step):
        with m.Case(Step.LOAD):
            with m.If(takes):
                m.d.comb += control.left.eq(Register.TARGET)
            with m.Elif(call.matches(MapCall.PUSH, MapCall.OUTPUT)):
                m.d.comb += control.left.eq(Register.R2)
            with m.Elif(call.matches(MapCall.EVENT)):
                m.d.comb += control.left.eq(Register.R4)
            with m.Else():
                m.d.comb += control.left.eq(Register.R3)
        with m.Case(Step.STORE):
            m.d.comb += control.left.eq(Mux(takes, Register.R2, Register.TARGET))
        with m.Case(Step.SIZE):
            with m.If(call == MapCall.RESERVE):
                m.d.comb += control.left.eq(Register.R2)
            with m.Elif(call == MapCall.OUTPUT):
                m.d.comb += control.left.eq(Register.R3)
            with m.Else():
                m.d.comb += [control.left.eq(Register.R5), control.then.eq(Step.BOUNDS)]
        with m.Case(Step.INSERT):
            m.d.comb += control.call.eq(Mux(takes, MapCall.RELEASE, MapCall.INSERT))
    return control


def this_pass(m: Module, decoded: Control, micro: Control, step: Step) -> Control:
    """The control word of a thread's pass: the decoded instruction's, or its step's, to which those of an atomic in a
    local window add what depends on the instruction."""
    control = Signal(Control)
    exchanges = decoded.then == Step.EXCHANGE  # the instruction is CMPXCHG, which writes r0 (0 as a Register)
    of_instruction = Value.cast(step).matches(Step.INSTRUCTION, Step.HELPER)
    m.d.comb += control.eq(Mux(of_instruction, decoded, micro))
    with m.Switch(step):
        with m.Case(Step.EXCHANGE):
            m.d.comb += control.size.eq(decoded.size)
        with m.Case(Step.COMPUTE):
            operation = Value.cast(decoded.operation)
            m.d.comb += [
                control.right.eq(decoded.right),
                control.unit.eq(Mux(operation[2], Unit.LOGIC, Unit.SUM)),
                control.logic.eq(operation[:2]),
            ]
            with m.If(exchanges):
                m.d.comb += [
                    control.logic.eq(Logic.XOR),
                    control.condition.eq(Condition.ZERO),
                    control.narrow.eq(decoded.size == LOG2_BYTES[32]),
                ]
        with m.Case(Step.PUT):
            m.d.comb += [
                control.right.eq(Mux(exchanges, Register.SRC, Register.TARGET)),
                control.size.eq(decoded.size),
            ]
        with m.Case(Step.FETCH):
            m.d.comb += [
                control.write.eq(decoded.write | exchanges),
                control.to.eq(decoded.to),
                control.size.eq(decoded.size),
            ]
    return control


def next_step(m: Module, control: Control, *, step, no_key, shared, split, last, copied, locked, finds, holds,
              of_function, missing, no_packet, no_bytes) -> Signal:  # fmt: skip
    """The thread's step after a pass.

    control, step : of this pass. no_key : a KEY may not read where its key is. shared : its access goes to map memory.
    split : only a part of its access was done. last : it was the last word of the key or of the copy; copied : and that
    ends the call, of which the engine wants to know no more; locked : under the value's lock. finds : it read the old
    value for an atomic, in a local window. holds : its condition does: a COMPUTE says that the new value is to be
    stored, a TRY_COPY that the lock was free. of_function : a CALLX calls one. missing : a word of the packet is not
    there. no_packet : an event takes no bytes of the packet. no_bytes : nor a checksum any where this pass has looked.
    """
    after = Signal(Step)
    m.d.comb += after.eq(control.then)
    with m.Switch(control.kind):
        with m.Case(Kind.KEY):
            m.d.comb += after.eq(Mux(no_key, Step.NO_KEY, Mux(shared, Step.SEND, Mux(last, Step.ENGINE, Step.KEY))))
        with m.Case(Kind.STORE):
            with m.If(last):
                m.d.comb += after.eq(Mux(copied, Step.INSTRUCTION, Mux(locked, Step.UNLOCK, Step.INSERT)))
                with m.If((control.call == MapCall.EVENT) & (step == Step.STORE)):
                    m.d.comb += after.eq(Step.ADVANCE)
        with m.Case(Kind.ADVANCE):
            with m.If(no_packet):
                m.d.comb += after.eq(Step.INSERT)
        with m.Case(Kind.CALLX):
            with m.If(of_function):
                m.d.comb += after.eq(Step.CALL)
        with m.Case(Kind.SUM):
            goes = control.then == Step.FROM
            with m.If(shared):
                m.d.comb += after.eq(Mux(goes, Step.SEND_FROM, Step.SEND_TO))
            with m.Elif(last):
                m.d.comb += after.eq(Mux(goes, Step.TURN, Step.INSTRUCTION))
    with m.If((control.sum == Sum.START) & no_bytes):
        m.d.comb += after.eq(Step.TURN)
    with m.If((control.sum == Sum.TURN) & no_bytes):
        m.d.comb += after.eq(Step.INSTRUCTION)
    with m.If(missing):
        m.d.comb += after.eq(Step.LEAVE)
    with m.If(split):
        m.d.comb += after.eq(step)
    with m.If(finds):
        m.d.comb += after.eq(Step.COMPUTE)
    with m.If((step == Step.COMPUTE) & holds):
        m.d.comb += after.eq(Step.PUT)
    with m.If((step == Step.TRY_COPY) & holds):
        m.d.comb += after.eq(Step.LOAD)
    return after
