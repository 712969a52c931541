"""Micro steps: instructions that take several passes, and what each pass is.

docs/hardware.md, "Micro steps", has the table. A thread's step is part of its state; `skip` is another: the bytes that
the first half of an access did which crosses a row of map memory. The second half is the same pass once more, at
`skip` bytes higher.
"""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib.enum import Enum

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
    Unit,
)
from bpfnic.hdl.interfaces import MapCall, MapOperation, Service
from bpfnic.spec.causes import Cause


class Step(Enum, shape=5):
    """What a thread's next pass is."""

    INSTRUCTION = 0  # the instruction at pc, from its beginning
    KEY = 1
    SEND = 2
    ENGINE = 3  # what the engine's answer says: INSTRUCTION, or LOAD, or a trap
    LOAD = 4
    STORE = 5
    EXCHANGE = 6
    NO_KEY = 7  # the key can't be read: MAP if the engine says that there is no such map, otherwise MEMORY_ACCESS
    ENTRY = 8  # what the engine's answer says of a tail call or redirect: where its entry is, that it has none, a trap
    ARRIVE = 9  # jump to a tail call's entry, or tell the packet path of a redirect map's
    COMPUTE = 10  # of an atomic that found its old value in a local window; then PUT and FETCH
    PUT = 11
    FETCH = 12
    CALL = 13  # a callx of a function
    HELPER = 14  # a callx of a helper: the instruction at pc once more, as a call of the helper whose number was kept
    SWAP = 15  # a word of the packet gets into host order
    LEAVE = 16  # there is no such word: the function returns 0
    INSERT = 17  # an update's value is copied: the engine puts it under its key


KEY = {"kind": Kind.KEY, "left": Register.R2, "addend": Addend.PROGRESS, "access": Access.LOAD, "size": LOG2_BYTES[64],
       "logic": Logic.RIGHT, "right": Register.R1, "side": 1, "write": 1, "to": Register.R0}  # fmt: skip
"""Reads 8 bytes of a helper's key, or what is left of it: r1, the handle, says how long it is."""

_INSERT = {"kind": Kind.INSERT, "call": MapCall.INSERT, "right": Register.R1, "side": 1, "size": LOG2_BYTES[64],
           "write": 1, "to": Register.R0}  # fmt: skip

_SEND = {"kind": Kind.SEND, "left": Register.WORD, "addend": Addend.ZERO, "unit": Unit.SUM, "size": LOG2_BYTES[64],
         "right": Register.R1, "side": 1, "write": 1, "to": Register.R0}  # fmt: skip

_LOAD = {"kind": Kind.LOAD, "left": Register.R3, "addend": Addend.PROGRESS, "access": Access.LOAD,
         "size": LOG2_BYTES[64], "logic": Logic.RIGHT, "write": 1, "to": Register.WORD}  # fmt: skip

_STORE = {"kind": Kind.STORE, "left": Register.TARGET, "right": Register.WORD, "addend": Addend.PROGRESS,
          "access": Access.STORE, "size": LOG2_BYTES[64], "unit": Unit.LOGIC, "logic": Logic.RIGHT,
          "to": Register.R0}  # fmt: skip

_EXCHANGE = {"access": Access.ATOMIC, "operation": MapOperation.CMPXCHG, "addend": Addend.OFFSET, "natural": 1,
             "left": Register.DST, "right": Register.SRC, "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1,
             "to": Register.R0}  # fmt: skip

_ENTRY = {"kind": Kind.ENTRY, "left": Register.TARGET, "addend": Addend.ZERO, "access": Access.LOAD,
          "size": LOG2_BYTES[32], "logic": Logic.RIGHT, "write": 1, "to": Register.WORD}  # fmt: skip

# WORD is the entry, or the engine's 0.
_JUMP = {"flow": Flow.TAIL, "left": Register.WORD, "addend": Addend.ZERO, "immediate": Immediate.CONTEXT,
         "unit": Unit.LOGIC, "logic": Logic.RIGHT, "size": LOG2_BYTES[64], "write": 1, "to": Register.R1}  # fmt: skip

_REDIRECT = {"kind": Kind.SERVICE, "service": Service.REDIRECT_MAP, "left": Register.R3, "addend": Addend.ZERO,
             "unit": Unit.SUM, "size": LOG2_BYTES[64], "right": Register.WORD, "side": 1, "write": 1,
             "to": Register.R0}  # fmt: skip

# A local atomic's first pass (or EXCHANGE) has checked the address and put the old value into WORD. What of these three
# depends on the instruction is in this_pass.
_COMPUTE = {"left": Register.WORD, "write": 1, "to": Register.TARGET, "size": LOG2_BYTES[64]}
_PUT = {"left": Register.DST, "addend": Addend.OFFSET, "access": Access.STORE, "unit": Unit.LOGIC,
        "logic": Logic.RIGHT}  # fmt: skip
_FETCH = {"left": Register.DST, "addend": Addend.OFFSET, "right": Register.WORD, "unit": Unit.LOGIC,
          "logic": Logic.RIGHT}  # fmt: skip
_CALL = {"flow": Flow.CALLX, "left": Register.DST, "addend": Addend.ZERO, "immediate": Immediate.LINK,
         "unit": Unit.LOGIC, "logic": Logic.RIGHT, "write": 1, "to": Register.LINK, "size": LOG2_BYTES[64]}  # fmt: skip

_SWAP = {"left": Register.WORD, "immediate": Immediate.SWAP_LOADED, "unit": Unit.SHIFT, "swap": 1, "write": 1,
         "to": Register.R0, "size": LOG2_BYTES[64]}  # fmt: skip

# The adder has the link, the result is 0.
_LEAVE = {"flow": Flow.EXIT, "left": Register.LINK, "addend": Addend.ZERO, "unit": Unit.NONE, "write": 1,
          "to": Register.R0, "size": LOG2_BYTES[64]}  # fmt: skip


def decodes_again(step: Step):
    """Whether a thread's pass looks at what the instruction at pc decodes to, though it doesn't begin it."""
    return Value.cast(step).matches(Step.HELPER, Step.KEY, Step.SEND, Step.ENTRY, Step.ARRIVE)


def this_pass(m: Module, decoded: Control, step: Step, engine_says) -> tuple[Control, Signal]:
    """The control word of a thread's pass, and whether it begins an instruction (the first half of a split access or
    its second).

    decoded : the word of the instruction at pc. step : the thread's. engine_says : what its last EngineAnswer was,
    `trap` and `copy`.
    """
    control, begins = Signal(Control), Signal()
    exchanges = decoded.kind == Kind.COMPARE  # the instruction is CMPXCHG, which writes r0 (0 as a Register)

    def word(work: dict):
        return control.eq(Control.const(work))

    def arrive() -> None:
        with m.If(decoded.call == MapCall.REDIRECT):
            m.d.comb += word(_REDIRECT)
        with m.Else():
            m.d.comb += word(_JUMP)

    m.d.comb += control.eq(decoded)
    with m.Switch(step):
        with m.Case(Step.INSTRUCTION):
            m.d.comb += begins.eq(1)
        with m.Case(Step.KEY):
            m.d.comb += [word(KEY), control.call.eq(decoded.call)]
        with m.Case(Step.SEND):
            m.d.comb += [word(_SEND), control.call.eq(decoded.call)]
        with m.Case(Step.ENGINE):
            with m.If(engine_says.trap):
                m.d.comb += word({"cause": Cause.MAP})
            with m.Elif(engine_says.copy):
                m.d.comb += word(_LOAD)
            with m.Else():
                m.d.comb += begins.eq(1)
        with m.Case(Step.LOAD):
            m.d.comb += word(_LOAD)
        with m.Case(Step.STORE):
            m.d.comb += word(_STORE)
        with m.Case(Step.INSERT):
            m.d.comb += word(_INSERT)
        with m.Case(Step.NO_KEY):
            m.d.comb += control.cause.eq(Mux(engine_says.trap, Cause.MAP, Cause.MEMORY_ACCESS))
        with m.Case(Step.ENTRY):
            with m.If(engine_says.trap):
                m.d.comb += word({"cause": Cause.MAP})
            with m.Elif(engine_says.copy):
                m.d.comb += word(_ENTRY)
            with m.Else():
                arrive()
        with m.Case(Step.ARRIVE):
            arrive()
        with m.Case(Step.CALL):
            m.d.comb += word(_CALL)
        with m.Case(Step.SWAP):
            m.d.comb += word(_SWAP)
        with m.Case(Step.LEAVE):
            m.d.comb += word(_LEAVE)
        with m.Case(Step.EXCHANGE):
            m.d.comb += [word(_EXCHANGE), control.size.eq(decoded.size)]
        with m.Case(Step.COMPUTE):
            operation = Value.cast(decoded.operation)
            m.d.comb += [
                word(_COMPUTE),
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
                word(_PUT),
                control.right.eq(Mux(exchanges, Register.SRC, Register.TARGET)),
                control.size.eq(decoded.size),
            ]
        with m.Case(Step.FETCH):
            m.d.comb += [
                word(_FETCH),
                control.write.eq(decoded.write | exchanges),
                control.to.eq(decoded.to),
                control.size.eq(decoded.size),
            ]
    return control, begins


def next_step(m: Module, *, step, kind: Kind, no_key, shared, split, last, inserts, finds, stores, of_function,
              missing) -> Signal:  # fmt: skip
    """The thread's step after a pass.

    step : of this pass. no_key : a KEY may not read where its key is. shared : its access goes to map memory; split :
    and only its first half. last : it was the last word of the key or of the value. inserts : the engine wants to know
    when the value is copied. finds : it read the old value for an atomic, in a local window; stores : a COMPUTE says
    that the new one is to be stored. of_function : a CALLX calls one. missing : a PACKET's word isn't there.
    """
    after = Signal(Step)
    with m.Switch(kind):
        with m.Case(Kind.FLAGS):
            m.d.comb += after.eq(Step.KEY)
        with m.Case(Kind.KEY):
            m.d.comb += after.eq(Mux(no_key, Step.NO_KEY, Mux(shared, Step.SEND, Mux(last, Step.ENGINE, Step.KEY))))
        with m.Case(Kind.SEND):
            m.d.comb += after.eq(Mux(last, Step.ENGINE, Step.KEY))
        with m.Case(Kind.INSERT):
            m.d.comb += after.eq(Step.ENGINE)
        with m.Case(Kind.LOAD):
            m.d.comb += after.eq(Step.STORE)
        with m.Case(Kind.STORE):
            m.d.comb += after.eq(Mux(last, Mux(inserts, Step.INSERT, Step.INSTRUCTION), Step.LOAD))
        with m.Case(Kind.TAIL):
            m.d.comb += after.eq(Step.ENTRY)
        with m.Case(Kind.ENTRY):
            m.d.comb += after.eq(Step.ARRIVE)
        with m.Case(Kind.COMPARE):
            m.d.comb += after.eq(Step.EXCHANGE)
        with m.Case(Kind.CALLX):
            m.d.comb += after.eq(Mux(of_function, Step.CALL, Step.HELPER))
        with m.Case(Kind.PACKET):
            m.d.comb += after.eq(Mux(missing, Step.LEAVE, Step.SWAP))
        with m.Default():
            m.d.comb += after.eq(Step.INSTRUCTION)
    with m.If(split):
        m.d.comb += after.eq(step)
    with m.If(finds):
        m.d.comb += after.eq(Step.COMPUTE)
    with m.If(step == Step.COMPUTE):
        m.d.comb += after.eq(Mux(stores, Step.PUT, Step.FETCH))
    with m.If(step == Step.PUT):
        m.d.comb += after.eq(Step.FETCH)
    return after
