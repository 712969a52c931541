"""The control word: what one pass through the pipeline does.

Most instructions are one pass. The decoder makes the word from the instruction, or, for a pass that goes on with one
begun earlier, from the thread's step (hdl/core/steps.py).
"""

from amaranth import Module, Signal, Value
from amaranth.lib import data
from amaranth.lib.enum import Enum

from bpfnic.hdl.interfaces import Service
from bpfnic.hdl.mapinterfaces import MapCall, MapOperation

LOG2_BYTES = {8: 0, 16: 1, 32: 2, 64: 3}
"""Control.size by the bits of an access or result."""


class Register(Enum, shape=4):
    """Which register an operand is. DST and SRC are the instruction's fields."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    DST = 8
    SRC = 9
    TARGET = 10  # hidden: the address in map memory of what is copied, what a local atomic stores
    WORD = 11  # hidden: half of a split load, a key from map memory, 8 bytes of a copy, what a local atomic found
    LINK = 12  # what a call leaves for its callee's exit: return pc, r10, frame; reads as r0 in the first frame
    FIRMWARE_LINK = 13  # the same, of a privileged routine


class Immediate(Enum, shape=4):
    """What takes the place of the right operand's register."""

    NONE = 0
    IMM = 1  # sign-extended
    WIDE = 2  # 64 bits
    SWAP = 3  # how far a reversed 64-bit word is to be shifted down, from the width in imm
    ZERO = 4
    LINK = 5
    ONE = 7
    SWAP_LOADED = 6  # how far a reversed 64-bit word is to be shifted down, from the size in the opcode
    TIME = 8
    RANDOM = 9
    CPU = 10
    CONTEXT = 11  # its address


class Addend(Enum, shape=3):
    """What the adder adds to the left operand (besides the bytes that a split access has done)."""

    RIGHT = 0
    OFFSET = 1  # the instruction's, sign-extended
    ZERO = 2
    PROGRESS = 3  # how far a key or a copy has come
    SIZE = 4  # of what was copied
    LOCK = 5  # where the lock of the value is that is copied to


class Unit(Enum, shape=2):
    """Where the result comes from."""

    NONE = 0  # 0 (of a multiplication: its product, which joins two stages later)
    SUM = 1
    LOGIC = 2
    SHIFT = 3


class Logic(Enum, shape=2):
    AND = 0
    OR = 1
    XOR = 2
    RIGHT = 3


class Condition(Enum, shape=3):
    """What decides a conditional jump."""

    ALWAYS = 0
    ZERO = 1  # the logic unit's result
    CARRY = 2  # of the adder
    CARRY_SIGNED = 3  # of the adder, had both sign bits been inverted
    LOW = 4  # less than half of the budget is left


class Flow(Enum, shape=3):
    """Where the thread goes on."""

    NEXT = 0
    JUMP = 1
    CALL = 2
    EXIT = 3
    TAIL = 4  # to the entry in the left operand, if it is valid and the packet has tail calls left
    CALLX = 5  # a call of the function at the adder's sum, a code address
    FIRMWARE = 6  # a call of a privileged routine


class Access(Enum, shape=2):
    NONE = 0
    LOAD = 1
    STORE = 2
    ATOMIC = 3


class Sum(Enum, shape=2):
    """What a pass of bpf_csum_diff does to its thread's sum (hdl/core/checksum.py)."""

    NONE = 0
    START = 1
    WORD = 2
    TURN = 3  # from the bytes that go to those that come


class Kind(Enum, shape=4):
    """What is particular about a pass; docs/hardware.md, "Micro steps"."""

    PLAIN = 0
    WORD = 1  # its result goes to the engine, as a call's last word where `then` waits for the answer
    KEY = 2  # 8 bytes of a key, or what is left of it, go to the engine
    LOAD = 3  # the same of a copy
    STORE = 4
    ADVANCE = 5  # where a copy's second part goes, if there is one
    RESULT = 6  # a call's answer says where its result is
    SERVICE = 7
    DIVIDE = 8
    CALLX = 9
    SUM = 10  # 8 bytes of a checksum, or what is left of them, go to its unit


class Step(Enum, shape=6):
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
    ARRIVE = 9  # JUMP to a tail call's entry, or tell the packet path of a REDIRECT map's
    COMPUTE = 10  # of an atomic that found its old value in a local window; then PUT and FETCH
    PUT = 11
    FETCH = 12
    CALL = 13  # a callx of a function
    HELPER = 14  # a callx of a helper: the instruction at pc once more, as a call of the helper whose number was kept
    SWAP = 15  # a word of the packet gets into host order
    LEAVE = 16  # there is no such word: the function returns 0
    INSERT = 17  # a value is copied: the engine is told
    SIZE = 18  # of a record, to the engine
    BOUNDS = 19  # of the packet, to the engine
    ADVANCE = 20  # behind an event's own bytes come the packet's
    LOAD_PACKET = 21
    STORE_PACKET = 22
    TRY = 23  # a lock was taken, or it wasn't free and the instruction begins again
    LOCK = 24  # of the value that is copied to
    TRY_COPY = 25  # it was taken, or wasn't free
    UNLOCK = 26
    FROM = 27  # bytes of a checksum that go
    SEND_FROM = 28
    TURN = 29  # its seed
    TO = 30  # bytes that come
    SEND_TO = 31
    # What ENGINE, ENTRY, ARRIVE and NO_KEY turn out to be, and no thread's next pass:
    RESULT = 32  # a look-up in a map of maps has its result there
    REDIRECT = 33
    JUMP = 34
    NO_MAP = 35  # a trap


class FieldRule(Enum, shape=2):
    """What the decoder still has to check of `offset` or `imm`."""

    ZERO = 0
    ANY = 1
    CHOSEN = 2  # the decoder looked at the lower isa.DISCRIMINATOR_BITS; those above must be zero
    FRAME = 3  # a frame size


class RegisterRule(Enum, shape=2):
    """The same of `dst` or `src`."""

    ZERO = 0
    READ = 1  # r0 to r10
    WRITTEN = 2  # r0 to r9
    ANY = 3  # the decoder looked at it


class Rules(data.Struct):
    """What is still to be checked of an instruction's fields."""

    dst: RegisterRule
    src: RegisterRule
    offset: FieldRule
    imm: FieldRule


class Control(data.Struct):
    """One pass.

    cause: the instruction traps, whatever else holds (spec.causes). blank: the left operand is 0. swap: its bytes are
    reversed. narrow: operands are cut to 32 bits, sign-extended with `signed`. invert, carry: the adder's right operand
    and carry in. upward, arithmetic: of the shifter. size: logarithm of the bytes of the memory access and of the
    result; extend: the result is sign-extended from them; cut: then its upper half is zeroed. sampled: no program can
    compute it. far: jump by `imm` instead of `offset`. wide: it takes two slots. aligned: stack and context ask for
    natural alignment; natural: so does every window. side: the right operand is kept for the request (a map's handle,
    the value to compare with, the divisor). modulo: of a division, its remainder. flags: the word is a call's flags.
    in_packet: the address counts from the packet's first byte. in_maps: the access may go to map memory alone. then:
    the thread's next step, where steps.next_step knows no better. sum: what the checksum unit is told.
    """

    cause: 4

    left: Register
    right: Register
    immediate: Immediate
    addend: Addend
    blank: 1
    swap: 1
    narrow: 1
    signed: 1

    unit: Unit
    logic: Logic
    invert: 1
    carry: 1
    upward: 1
    arithmetic: 1
    multiply: 1

    write: 1
    to: Register
    size: 2
    extend: 1
    cut: 1
    sampled: 1

    flow: Flow
    condition: Condition
    negate: 1
    far: 1
    wide: 1

    access: Access
    aligned: 1
    natural: 1
    operation: MapOperation
    side: 1
    modulo: 1

    kind: Kind
    then: Step
    flags: 1
    in_packet: 1
    in_maps: 1
    call: MapCall
    service: Service
    sum: Sum


class Traits(data.Struct):
    """What stage MEMORY asks of a Control, a bit each, so that it needn't look at codes.

    key to sum: its kind. accesses: it has an access; atomic: which one. sums: it tells the checksum unit something;
    sums_word: namely a word.
    asks: a word or a service, for which a request leaves. calls: with its word the engine's call is made. ends_of_call:
    the call is one that an answer asked for, and no instruction's. updates: its call is. stays: there is a next step.
    """

    key: 1
    load: 1
    store: 1
    result: 1
    divide: 1
    sum: 1
    accesses: 1
    atomic: 1
    sums: 1
    sums_word: 1
    asks: 1
    calls: 1
    ends_of_call: 1
    updates: 1
    stays: 1


def traits(m: Module, control: Control) -> Signal:
    """The Traits of a Control, in the same clock."""
    kind, call, found = Value.cast(control.kind), Value.cast(control.call), Signal(Traits)
    ends_of_call = call.matches(MapCall.INSERT, MapCall.RELEASE)
    m.d.comb += [
        *(found[name].eq(control.kind == Kind[name.upper()])
          for name in ("key", "load", "store", "result", "divide", "sum")),
        found.accesses.eq(control.access != Access.NONE),
        found.atomic.eq(control.access == Access.ATOMIC),
        found.sums.eq(control.sum != Sum.NONE),
        found.sums_word.eq(control.sum == Sum.WORD),
        found.asks.eq(kind.matches(Kind.WORD, Kind.SERVICE)),
        found.calls.eq(kind.matches(Kind.WORD) & (control.then == Step.ENGINE) & ~ends_of_call),
        found.ends_of_call.eq(ends_of_call),
        found.updates.eq(control.call == MapCall.UPDATE),
        found.stays.eq((control.then != Step.INSTRUCTION) | kind.matches(Kind.RESULT)),
    ]  # fmt: skip
    return found
