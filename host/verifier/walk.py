"""The walk over all paths of a program, depth first, as Linux's verifier does it (kernel: do_check)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bpfnic.host import runtime, sections
from bpfnic.host.link import Reference
from bpfnic.host.maps import MapDefinition
from bpfnic.host.object import Object, Program, SourceLine
from bpfnic.host.prototypes import Prototype
from bpfnic.host.structure import Code, jump_target
from bpfnic.host.verifier import (
    arithmetic,
    calls,
    context,
    depth,
    graph,
    jumps,
    links,
    liveness,
    memory,
    named,
    pointers,
    precision,
    pruning,
    stack,
    subprograms,
    text,
)
from bpfnic.host.verifier.globalfunctions import GlobalFunctions
from bpfnic.host.verifier.locks import Locks
from bpfnic.host.verifier.log import Log, Position
from bpfnic.host.verifier.precision import Needed
from bpfnic.host.verifier.refusal import Refusal, TooComplex
from bpfnic.host.verifier.scalar import constant
from bpfnic.host.verifier.state import Frame, State, initial
from bpfnic.host.verifier.values import (
    CONTEXT,
    FUNCTION,
    MAP,
    META,
    NONE,
    NOTHING,
    NUMBER,
    PACKET,
    UNKNOWN_NUMBER,
    VALUE,
    ZERO,
    Held,
    loaded,
    number,
)
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import BY_NUMBER
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType

LIMIT = 1_000_000
"""Instructions that are walked (BPF_COMPLEXITY_LIMIT_INSNS)."""
PENDING = 8192
"""Paths that may wait (BPF_COMPLEXITY_LIMIT_JMP_SEQ)."""
_CONTEXT_REGISTER = 6  # which LD_ABS and LD_IND take


@dataclass(frozen=True)
class Subject:
    """What is verified. `code`: an entry a slot, with what 64-bit immediates stand for in `references`; `attach`: what
    the section says behind the type; `device_bound`: for a device of its own, as offloaded programs are; `prototypes`:
    what BTF says of the functions that start at these slots (those of which it says nothing are static); `named`:
    functions that are called at these slots and that aren't in it (named.py)."""

    name: str
    type: ProgramType
    code: Code
    references: Mapping[int, Reference] = field(default_factory=dict)
    maps: Mapping[str, MapDefinition] = field(default_factory=dict)
    license: str = "GPL"
    attach: str = ""
    device_bound: bool = False
    line: Callable[[int], SourceLine | None] = lambda slot: None
    prototypes: Mapping[int, Prototype] = field(default_factory=dict)
    named: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(object: Object, program: Program) -> Subject:
        """A program of an opened object. Raises BpfnicError where its type isn't known."""
        return replace(Subject.on(program, object.maps, frozenset(BY_NUMBER)), device_bound=False)

    @staticmethod
    def on(program: Program, maps: Mapping[str, MapDefinition], hardware: frozenset[int]) -> Subject:
        """The same with these maps, by name, on a NIC that has these helpers, by number, in hardware; it is bound to
        that NIC."""
        if program.type is None:
            raise BpfnicError(f"program {program.name!r} is {sections.of_type(program.section)}")
        seen = program.with_names(runtime.linked(program.type, hardware))
        return Subject(seen.name, program.type, seen.resolved(hardware), seen.references, maps, seen.license,
                       seen.attach, program.type is ProgramType.XDP, seen.line, seen.prototypes, seen.named)

    def graph(self) -> graph.Graph:
        """As the walk takes it."""
        return graph.read(self.code, {slot for slot, name in self.named.items() if name == named.NEXT})


class Walk:
    """One run of the verifier. `graph`, `context`: found once; `liveness`: of the stack, found as it goes. `state`: the
    path under way; `ended`: that it has come to its end. `tail_calls`: what the one at a slot is given, maps by name,
    with the index where it is known; `callbacks`: what functions have helpers call, both by their first slots.
    Counters: `processed` instructions and `jumps` among them; of checkpoints `most_states` at one instruction, `states`
    in all."""

    def __init__(self, subject: Subject, log: Log, limit: int = LIMIT,
                 observe: Callable[[State], None] | None = None):  # fmt: skip
        self.subject, self.code, self.log, self.limit = subject, subject.code, log, limit
        self.observe = observe
        self.how = pruning.WITHIN if observe else pruning.SAFE
        self.locks, self.globals = Locks(self), GlobalFunctions(self)
        self.context = context.members(subject.type, subject.attach, subject.device_bound)
        self.checkpoints: dict[int, pruning.Kept] = {}
        self.waiting: list[tuple[State, Position]] = []
        self.state = self.begin(0)
        self.processed = self.jumps = self.kept_jumps = self.kept_processed = 0
        self.states = self.most_states = self.kept_states = self.peak_states = self._ids = 0
        self.depths: dict[int, int] = {}
        self.map_calls: dict[tuple[int, MapType], int] = {}
        self.callbacks: dict[int, set[int]] = {}
        self.tail_calls: dict[int, set[tuple[str, int | None]]] = {}
        self.taken_at: dict[int, int] = {}
        self.warnings: dict[int, str] = {}
        self.ended = False

    # What the parts of the walk share.

    def new_id(self) -> int:
        self._ids += 1
        return self._ids

    def say(self, line: str) -> None:
        """A line of the log before the error's."""
        self.log.line(line)

    def readable(self, register: int) -> Held:
        """What a register holds. Raises Refusal where that may not be read."""
        held = self.state.frame.regs[register]
        if held.kind is NONE:
            raise Refusal(f"R{register} !read_ok", register=register, why=f"r{register} holds nothing here: it was "
                          "never written on this path, or a call made it unusable.",
                          fix="set it before, or keep the value in r6 to r9 over calls")  # fmt: skip
        return held

    def need_exact(self, register: int) -> None:
        """The number in a register decides whether the program is safe: mark where it came from."""
        if self.state.frame.regs[register].kind is NUMBER:
            needed = Needed()
            needed.regs[self.state.frame.number] = 1 << register
            self._mark(needed)

    def need_place(self, frame: int, index: int) -> None:
        """The same of a number on the stack."""
        needed = Needed()
        needed.places[frame] = 1 << index
        self._mark(needed)

    def _mark(self, needed: Needed) -> None:
        history = self.state.history
        assert history
        precision.mark(self, history[0], self.state.parent, needed)

    def note(self, what: tuple[object, ...]) -> None:
        """For backtracking over the current instruction."""
        history = self.state.history
        assert history
        self.state.history = (*history[:3], what)

    def note_places(self, what: tuple[object, ...]) -> None:
        """The same of what moved a register, or told several of something."""
        self.note(what)
        self.state.steps += self.state.slot not in self.graph.landings

    def note_stack(self, frame: int, index: int) -> None:
        """The current instruction moves a register to or from that place."""
        self.note_places(("stack", frame, index))

    def reads(self, frame: Frame, low: int, end: int) -> None:
        """The current instruction reads a frame's bytes from `low` on, below `end`."""
        self.liveness.read(self.state.frame.instance, self.state.slot, liveness.mask(frame.number, low, end))

    def overwrites(self, frame: Frame, low: int, end: int) -> None:
        """The current instruction leaves nothing of what was in these."""
        self.liveness.write(liveness.mask(frame.number, low, end))

    def deepen(self, frame: int, depth: int) -> None:
        """A function uses so many bytes of stack."""
        entry = self.state.frames[frame].entry
        if depth > self.depths.get(entry, 0):
            self.depths[entry] = depth

    def warn_unwritten(self, low: int, size: int) -> None:
        self.warnings.setdefault(self.state.slot, f"reads stack bytes {low} to {low + size - 1}, which the program "
                                 "never wrote: 0 on the NIC, anything in Linux (and refused there without root)")

    def count_checkpoint(self) -> None:
        self.states += 1
        self.kept_states += 1
        self.peak_states = max(self.peak_states, self.kept_states)

    def push(self, state: State) -> None:
        """A path that waits to be walked."""
        if state.parent is not None:
            state.parent.branches += 1
        self.waiting.append((state, self.log.position()))
        if len(self.waiting) > PENDING:
            raise TooComplex(f"The sequence of {len(self.waiting)} jumps is too complex.",
                             why=f"More than {PENDING} paths wait to be followed.")  # fmt: skip

    def go(self, slot: int) -> None:
        """The path goes on there."""
        self.state.previous, self.state.slot = self.state.slot, slot

    def end_path(self) -> None:
        self.ended = True

    # The walk.

    def run(self) -> None:
        """All paths. Raises Refusal."""
        try:
            self.prepare()
            self._paths()
            self._global_functions()
            depth.check(self)
        except Refusal as refusal:
            if refusal.slot < 0:
                refusal.slot = self.state.slot
            raise

    def prepare(self) -> None:
        """What is said of the program before any path is walked. Raises Refusal."""
        self.graph = self.subject.graph()
        self.liveness = liveness.Liveness(self.graph)

    def begin(self, entry: int) -> State:
        """The state in which the program begins, or the global function at that slot."""
        return self.globals.begin(entry) if entry else initial(0)

    def _global_functions(self) -> None:
        """Each that was called, each once; they may call others."""
        verified: set[int] = set()
        while waiting := self.globals.waiting(verified):
            for entry in sorted(waiting):
                self.checkpoints.clear()
                self.state = self.begin(entry)
                self._paths()
                self.globals.safe(entry)
                verified.add(entry)

    def _paths(self) -> None:
        """All paths from the state under way."""
        joins, landings, rows, code = self.graph.joins, self.graph.landings, self.graph.rows, self.code
        state = self.state
        self.log.begin(self)
        while True:
            slot = state.slot
            self.processed += 1
            if self.processed > self.limit:
                raise TooComplex(f"BPF program is too large. Processed {self.processed} insn", slot,
                                 f"More than {self.limit} instructions would have to be walked.",
                                 "make loops shorter, or their bodies simpler")  # fmt: skip
            if slot in joins:
                if pruning.visited(self, state):
                    self.log.safe(state)
                    if not self._next():
                        break
                    state = self.state
                    continue
            row, instruction = rows[slot], code[slot]
            assert row and instruction
            if self.observe:
                self.observe(state)
            state.history = (state.history, slot, len(state.frames) - 1, None)
            if slot in landings:
                state.steps += 1
            if self.log.level:
                self.log.before(self)
                self._step(row, instruction)
                self.log.after(self, row, slot)
            else:
                self._step(row, instruction)
            if self.ended:
                self.ended = False
                if not self._next():
                    break
                state = self.state
        self.log.accepted()

    def _next(self) -> bool:
        """The path under way has ended: take up the next one that waits. False if there is none."""
        self.liveness.settle()
        checkpoint = self.state.parent
        while checkpoint is not None:
            checkpoint.branches -= 1
            if checkpoint.branches:
                break
            pruning.finished(checkpoint)
            checkpoint = checkpoint.parent
        if not self.waiting:
            return False
        self.state, position = self.waiting.pop()
        self.log.back(position)
        return True

    def _step(self, row: Row, instruction: Instruction) -> None:
        """One instruction, with the state before it, to the state behind it."""
        state, slot = self.state, self.state.slot
        kind = self.graph.kinds[slot]
        if kind is Class.ALU64 or kind is Class.ALU:
            self._arithmetic(row, instruction, kind is Class.ALU)
        elif kind is Class.LDX:
            self._load(row, instruction)
        elif kind is Class.ST or kind is Class.STX:
            self._store(row, instruction)
            self.liveness.visited(state.frame.instance, slot)
        elif row.operation in _PACKET_LOADS:
            self._load_packet(row, instruction)
            return
        elif kind is Class.LD:
            self._wide(row, instruction)
        else:
            self.jumps += 1
            instance = state.frame.instance
            self._jump(row, instruction)
            if row.operation in graph.CALLS:
                self.liveness.visited(instance, slot)
            return
        state.previous, state.slot = state.slot, state.slot + instruction.slots

    def _arithmetic(self, row: Row, instruction: Instruction, word: bool) -> None:
        regs, dst, operation = self.state.frame.regs, instruction.dst, row.operation
        if operation is Operation.MOV:
            regs[dst] = self._moved(row, instruction, word)
            return
        if operation is Operation.MOVSX:
            regs[dst] = self._sign_extended(instruction, word)
            return
        a = self.readable(dst)
        if operation is Operation.NEG:
            regs[dst] = number(arithmetic.negate(a.number, word)) if a.kind is NUMBER else UNKNOWN_NUMBER
            return
        if operation in (Operation.LE, Operation.BE, Operation.BSWAP):
            reverse = operation is not Operation.LE
            regs[dst] = number(arithmetic.swap(a.number, row.width, reverse)) if a.kind is NUMBER else UNKNOWN_NUMBER
            return
        if row.register_operand:
            b, src = self.readable(instruction.src), instruction.src
        else:
            b, src = Held(NUMBER, constant(instruction.imm)), None
            if operation in _DISTANCES and not 0 <= instruction.imm < row.width:
                raise Refusal(f"invalid shift {instruction.imm}", why=f"A shift of {row.width} bits goes from 0 to "
                              f"{row.width - 1}.")  # fmt: skip
            if operation in _DIVISIONS and instruction.imm == 0:
                raise Refusal("div by zero", why="The divisor is the constant 0.")
        if a.kind is NUMBER and b.kind is NUMBER:
            if operation in _MASKS and b.constant:
                a = jumps.split_mask(self, dst, a)
            result = arithmetic.compute(operation, a.number, b.number, word)
            regs[dst] = links.moved(operation, a, b.number, result, word)
        else:
            regs[dst] = pointers.compute(self, operation, a, b, word, dst, src)

    def _moved(self, row: Row, instruction: Instruction, word: bool) -> Held:
        if not row.register_operand:
            return number(constant(instruction.imm & 0xFFFF_FFFF if word else instruction.imm))
        source = self.readable(instruction.src)
        if source.kind is not NUMBER:
            return pointers.arithmetic_word_unknown() if word else source
        if not word or source.number.umax <= 0xFFFF_FFFF:
            return links.copied(self, instruction.src)
        return number(arithmetic.move(source.number, True))

    def _sign_extended(self, instruction: Instruction, word: bool) -> Held:
        source, bits = self.readable(instruction.src), instruction.offset
        if source.kind is not NUMBER:
            return pointers.arithmetic_word_unknown() if word else UNKNOWN_NUMBER
        if source.number.umax < 1 << bits - 1:
            return links.copied(self, instruction.src)
        return number(arithmetic.sign_extend(source.number, bits, word))

    def _load(self, row: Row, instruction: Instruction) -> None:
        size = row.width // 8
        held = memory.load(self, instruction.src, instruction.offset, size)
        if row.operation is Operation.LDXS:
            held = number(arithmetic.sign_extend(held.number, row.width, False)) if held.kind is NUMBER else held
        self.state.frame.regs[instruction.dst] = held

    def _store(self, row: Row, instruction: Instruction) -> None:
        regs, size, operation = self.state.frame.regs, row.width // 8, row.operation
        dst, src = instruction.dst, instruction.src
        if row.instruction_class is Class.ST:
            memory.store(self, dst, instruction.offset, size, Held(NUMBER, constant(instruction.imm)), None)
            return
        if operation in (Operation.STX, Operation.STORE_RELEASE):
            value = self.readable(src)
            if value.kind is NUMBER and stack.spills(self.readable(dst), instruction.offset, size, value.number):
                value = links.copied(self, src)
            self._ordered(operation, dst, instruction.offset, size)
            memory.store(self, dst, instruction.offset, size, value, src)
            return
        if operation is Operation.LOAD_ACQUIRE:
            self._ordered(operation, src, instruction.offset, size)
            regs[dst] = memory.load(self, src, instruction.offset, size)
            return
        self.readable(src)
        if operation is Operation.ATOMIC_CMPXCHG:
            self.readable(0)
        memory.atomic(self, dst, instruction.offset, size)
        if operation is Operation.ATOMIC_CMPXCHG:
            regs[0] = loaded(row.width)
        elif row.src is Legal.WRITTEN:
            regs[src] = loaded(row.width)

    def _ordered(self, operation: Operation, base: int, offset: int, size: int) -> None:
        """Loads that acquire and stores that release are aligned, and not for contexts and packets."""
        if operation is Operation.STX:
            return
        pointer = self.readable(base)
        if pointer.kind in (PACKET, META, CONTEXT):
            what = "loads from" if operation is Operation.LOAD_ACQUIRE else "stores into"
            raise Refusal(f"BPF_ATOMIC {what} R{base} {text.kind(pointer)} is not allowed", register=base)
        memory.aligned(self, base, pointer, offset, size, strict=True)

    def _load_packet(self, row: Row, instruction: Instruction) -> None:
        state = self.state
        if self.subject.type is ProgramType.XDP:
            raise Refusal("BPF_LD_[ABS|IND] instructions not allowed for this program type")
        given = self.readable(_CONTEXT_REGISTER)
        if given.kind is not CONTEXT:
            raise Refusal("at the time of BPF_LD_ABS|IND R6 != pointer to skb", register=_CONTEXT_REGISTER)
        context.unmoved(_CONTEXT_REGISTER, given)
        if row.operation is Operation.LD_IND:
            self.readable(instruction.src)
        if state.lock is not None:
            raise Refusal("BPF_LD_[ABS|IND] cannot be used inside bpf_spin_lock-ed region")
        if state.refs:
            raise calls.unreleased(self, "BPF_LD_[ABS|IND] would lead to reference leak")
        state.frame.regs[0:6] = [loaded(64), *[NOTHING] * 5]
        self.go(state.slot + 1)
        subprograms.may_return(self, Held(NUMBER, ZERO), changes_packet=False)

    def _wide(self, row: Row, instruction: Instruction) -> None:
        state = self.state
        regs = state.frame.regs
        reference = self.subject.references.get(state.slot)
        if reference is not None:
            definition = self.subject.maps[reference.map]
            if reference.offset is None:
                regs[instruction.dst] = Held(MAP, ZERO, map=definition)
            else:
                regs[instruction.dst] = Held(VALUE, ZERO, off=reference.offset, map=definition)
        elif row.operation is Operation.LDDW:
            regs[instruction.dst] = number(constant(instruction.imm64))
        elif row.imm is Legal.BRANCH:
            regs[instruction.dst] = Held(FUNCTION, ZERO, target=state.slot + 1 + instruction.imm)
        else:
            raise Refusal("unrecognized bpf_ld_imm64 insn", why="This constant stands for nothing that was linked.")

    def _jump(self, row: Row, instruction: Instruction) -> None:
        state, operation = self.state, row.operation
        if operation is Operation.JA:
            target = jump_target(state.slot, row, instruction)
            assert target is not None
            self.go(target)
        elif operation is Operation.EXIT:
            self._exit()
        elif operation is Operation.CALL_HELPER:
            calls.call(self, instruction.imm)
        elif operation is Operation.CALL_LOCAL:
            subprograms.call(self, state.slot + 1 + instruction.imm)
        elif operation is Operation.MAY_GOTO:
            jumps.may_goto(self)
        elif name := self.subject.named.get(state.slot):
            named.call(self, name)
        elif operation in (Operation.CALL_BTF, Operation.CALLX):
            raise Refusal("calling kernel function is not allowed" if operation is Operation.CALL_BTF else
                          f"unknown opcode {instruction.opcode:02x}",
                          why="Only helpers and the program's own functions can be called.")  # fmt: skip
        else:
            jumps.conditional(self, row, instruction)

    def _exit(self) -> None:
        if len(self.state.frames) > 1:
            subprograms.leave(self)
            return
        calls.check_released(self)
        if self.state.frame.entry:
            self.globals.leave()
        else:
            self.readable(0)
        self.end_path()


_DISTANCES = frozenset({Operation.LSH, Operation.RSH, Operation.ARSH})
_PACKET_LOADS = frozenset({Operation.LD_ABS, Operation.LD_IND})
_MASKS = frozenset({Operation.AND, Operation.OR})
_DIVISIONS = frozenset({Operation.DIV, Operation.SDIV, Operation.MOD, Operation.SMOD})
