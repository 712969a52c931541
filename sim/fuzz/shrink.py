"""From a run that failed to the smallest that still does: one packet, few instructions, plain numbers.

Each step offers a smaller case and keeps it if it fails, in whatever way: any difference is one. First the golden
model's own path is laid out straight, without a jump or loop; then instructions are left out (delta debugging, with
jumps re-targeted); what an instruction wrote is put in its place as a constant, so that what computed it can go; then
constants, offsets, the frame and map memory become zeros as far as they can.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from bpfnic.host.device import Arrival, Retirement
from bpfnic.sim.fuzz.compare import Case, Parting, alone
from bpfnic.sim.fuzz.program import Line, Program, make
from bpfnic.sim.fuzz.vector import DEFAULT_BUDGET, DEFAULT_FRAME
from bpfnic.spec import isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation

Fails = Callable[[Case], Parting | None]
Traced = Callable[[Case], Sequence[Retirement]]
"""The golden model's own retired instructions, of all packets."""

MemoryAfter = Callable[[Case], bytes]

MOST_TRIALS = 3000
EXIT = Line(make("exit"))
_CALLS = (Operation.CALL_LOCAL, Operation.CALLX, Operation.CALL_FIRMWARE)


@dataclass
class Shrinker:
    """`fails` runs a case; `trace` and `memory_after` run it on the golden model alone."""

    fails: Fails
    trace: Traced
    memory_after: MemoryAfter
    case: Case
    parting: Parting
    trials: int = 0

    def keeps(self, case: Case) -> bool:
        """Take a case in place of the one so far, if it fails too."""
        if self.trials >= MOST_TRIALS:
            return False
        self.trials += 1
        parting = self.fails(case)
        if parting is None:
            return False
        self.case, self.parting = case, parting
        return True

    def shrink(self) -> None:
        """Make the case small."""
        self._one_packet()
        if len(self.case.frames) > 1:
            self._frames()
        if len(self.case.programs) == len(self.case.frames) == 1:
            self._straighten()
        size = None
        while size != (size := self._size()):
            for number in range(len(self.case.programs)):
                self._lines(number)
                self._constants(number)
                self._lines(number)
                self._fields(number)
            self._frame_bytes()
            self._memory()
            if self.case.budget != DEFAULT_BUDGET:
                self.keeps(replace(self.case, budget=DEFAULT_BUDGET))
        if len(self.case.programs) == 1:
            self._show()

    def _size(self) -> tuple[int, int, int]:
        code = b"".join(program.code() for program in self.case.programs)
        return len(code), sum(map(bool, code)), sum(len(frame.data) for frame in self.case.frames)

    def _with(self, number: int, program: Program) -> Case:
        programs = (*self.case.programs[:number], program, *self.case.programs[number + 1 :])
        return replace(self.case, programs=programs)

    # -- packets --

    def _one_packet(self) -> None:
        named = [] if self.parting.arrival is None else [self.parting.arrival]
        others = [number for number in range(len(self.case.frames)) if number not in named]
        whole = self.case
        for number in named + others:
            if self.keeps(alone(whole, number)):
                return
        for number in named:  # perhaps with what the packets before it leave in map memory
            before = self.memory_after(replace(whole, frames=whole.frames[:number]))
            if self.keeps(alone(replace(whole, memory=before), number)):
                return

    def _frames(self) -> None:
        """As few as possible, where it takes several."""
        for kept in _halving(len(self.case.frames), lambda: len(self.case.frames)):
            self.keeps(replace(self.case, frames=tuple(self.case.frames[number] for number in kept)))

    # -- instructions --

    def _straighten(self) -> None:
        """The instructions of the golden model's run, in the order in which they retired, up to each of them."""
        (program,) = self.case.programs
        entry = self.case.first
        at = {slot + entry: line for slot, line in zip(program.slots(), program.lines, strict=False)}
        path = [at.get(one.pc) for one in self.trace(self.case)]
        if None in path or any(_operation(line) in _CALLS for line in path if line):
            return
        straight = [line for line in path if line and line.target is None and _operation(line) is not Operation.EXIT]
        straight = [line for line in straight if _operation(line) is not Operation.JA]
        self.keeps(self._with(0, Program((*straight, EXIT))))

    def _lines(self, number: int) -> None:
        for kept in _halving(len(self.case.programs[number].lines), lambda: len(self.case.programs[number].lines)):
            self.keeps(self._with(number, self.case.programs[number].keeping(kept)))

    def _constants(self, number: int) -> None:
        """What an instruction wrote, in its place."""
        if len(self.case.frames) > 1:
            return
        entry = self.case.entries()[number]
        wrote = {one.pc - entry: one for one in self.trace(self.case) if one.register is not None}
        program = self.case.programs[number]
        for place, slot in reversed(list(enumerate(program.slots()[:-1]))):
            operation = _operation(program.lines[place])
            if slot in wrote and operation not in (None, Operation.LDDW):
                register, value = wrote[slot].register, wrote[slot].value
                assert register is not None
                constant = _constant(register, value)
                if constant != program.lines[place]:
                    self.keeps(self._with(number, self.case.programs[number].changed(place, constant)))

    def _fields(self, number: int) -> None:
        for place in range(len(self.case.programs[number].lines)):
            for simpler in _simpler(self.case.programs[number].lines[place]):
                self.keeps(self._with(number, self.case.programs[number].changed(place, simpler)))

    def _show(self) -> None:
        """An exit at the end, and marks in place of jumps that are left, so that the end tells what went wrong."""
        if self.case.programs[0].lines[-1:] != (EXIT,):
            self.keeps(self._with(0, Program((*self.case.programs[0].lines, EXIT))))
        for place, line in enumerate(self.case.programs[0].lines):
            if line.target is not None:
                self.keeps(self._with(0, self.case.programs[0].changed(place, _constant(0, 1))))

    # -- what programs find --

    def _frame_bytes(self) -> None:
        for number in range(len(self.case.frames)):
            data = self.case.frames[number].data
            plain = replace(self.case, frames=_changed(self.case.frames, number, DEFAULT_FRAME))
            if data == DEFAULT_FRAME or self.keeps(plain):
                continue
            for simpler in (bytes(len(data)), data[:64], data[:128]):
                if simpler != data and len(simpler) <= len(data):
                    self.keeps(replace(self.case, frames=_changed(self.case.frames, number, simpler)))
            for at in range(0, len(data), 8):
                data = self.case.frames[number].data
                if any(data[at : at + 8]):
                    zeroed = data[:at] + bytes(len(data[at : at + 8])) + data[at + 8 :]
                    self.keeps(replace(self.case, frames=_changed(self.case.frames, number, zeroed)))

    def _memory(self) -> None:
        if any(self.case.memory) and not self.keeps(replace(self.case, memory=bytes(len(self.case.memory)))):
            for at in range(0, len(self.case.memory), 8):
                memory = self.case.memory
                if any(memory[at : at + 8]):
                    self.keeps(replace(self.case, memory=memory[:at] + bytes(8) + memory[at + 8 :]))


def _changed(frames: tuple[Arrival, ...], number: int, data: bytes) -> tuple[Arrival, ...]:
    return (*frames[:number], replace(frames[number], data=data), *frames[number + 1 :])


def _halving(count: int, now: Callable[[], int]) -> Iterator[list[int]]:
    """What is left when a span is taken out, for spans from a half down to one; `now` says how many there are, for the
    one who asks may have taken what was offered."""
    span = max(1, count // 2)
    while True:
        start = 0
        while start < now():
            before = now()
            yield [number for number in range(before) if not start <= number < start + span]
            start += span if now() == before else 0
        if span == 1:
            return
        span //= 2


def _operation(line: Line) -> Operation | None:
    try:
        return isa.find(line.instruction).operation
    except BpfnicError:
        return None


def _constant(register: int, value: int) -> Line:
    signed = value - (value >> 63 << 64)
    if -1 << 31 <= signed < 1 << 31:
        return Line(make("mov64_imm", dst=register, imm=signed))
    low, high = value & 0xFFFF_FFFF, value >> 32
    return Line(make("lddw", dst=register, imm=low - (low >> 31 << 32), next_imm=high - (high >> 31 << 32)))


def _simpler(line: Line) -> Iterator[Line]:
    """The line with one field nearer to 0."""
    try:
        row = isa.find(line.instruction)
    except BpfnicError:
        return
    instruction = line.instruction

    def tried(**fields: int) -> Iterator[Line]:
        changed = replace(instruction, **fields)
        if changed != instruction and not isa.refusals(row, changed):
            yield replace(line, instruction=changed)

    if row.operation is Operation.LDDW and line.target is None:
        yield from _smaller_constant(instruction)
    elif row.imm is Legal.IMM32:
        for simpler in (0, 1, -1) if abs(instruction.imm) > 1 else (0,):
            yield from tried(imm=simpler)
    if row.offset is Legal.SIGNED16 and instruction.offset and row.instruction_class is not Class.JMP:
        yield from tried(offset=0)


def _smaller_constant(instruction: Instruction) -> Iterator[Line]:
    value = instruction.imm64
    for simpler in (0, 1, (1 << 64) - 1, value & 0xFFFF_FFFF, value >> 63 << 63, 1 << 63 | value & 0xFF, value & 0xFF):
        if simpler != value and simpler.bit_count() < value.bit_count():
            yield _constant(instruction.dst, simpler)
