"""The verifier's log, in the format of Linux's (kernel: print_verifier_state, verbose)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import stack, text
from bpfnic.host.verifier.graph import uses
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import REGISTERS, Class, Operation, Row

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

_COLUMN = 38
_LONGEST = 1 << 20
"""Lines that are kept; Linux's user gives a buffer's size instead."""


class Log:
    """`level` 0: the error and the sums; 1: the path that leads to the error, too; 2: all paths."""

    def __init__(self, level: int = 0):
        self.level = level
        self.lines: list[str] = []
        self._source: tuple[str, int] | None = None
        self._waiting = 0
        self._place: int | None = None

    def line(self, line: str) -> None:
        if len(self.lines) < _LONGEST:
            self.lines.append(line)

    def begin(self, walk: "Walk") -> None:
        if self.level:
            self.line(f"func#0 @{walk.state.slot}")
            if self.level > 1:
                self._live(walk)
            self._state(walk)

    def _live(self, walk: "Walk") -> None:
        """Registers that are read later, before each instruction."""
        self.line("Live regs before insn:")
        for slot, instruction in enumerate(walk.code):
            row = walk.graph.rows[slot]
            if row and instruction:
                bits = "".join(str(index) if walk.graph.live[slot] >> index & 1 else "." for index in range(10))
                loop = "  1" if walk.graph.loop[slot] else "   "
                shown = text.instruction(row, instruction, self._reference(walk, slot))
                self.line(f"{loop} {slot:3}: {bits} {shown}")

    def _state(self, walk: "Walk") -> None:
        self.line(f"{walk.state.slot}: {text.state(walk.state)}")

    def safe(self, walk: "Walk") -> None:
        """The path is covered by an earlier one."""
        if self.level:
            state = walk.state
            self.line(f"{state.slot}: safe" if state.steps else f"from {state.previous} to {state.slot}: safe")

    def position(self) -> int:
        """Where the log stands."""
        return len(self.lines)

    def accepted(self) -> None:
        """There is no error that a path led to."""
        if self.level == 1:
            self.lines.clear()

    def back(self, walk: "Walk", position: int) -> None:
        """A path that waited is taken up, from where the log stood at `position`."""
        if self.level == 1:
            del self.lines[position:]
        if self.level:
            self._source = None
            self.line("")
            self.line(f"from {walk.state.previous} to {walk.state.slot}: {text.state(walk.state)}")

    def before(self, walk: "Walk", row: Row, instruction: Instruction) -> None:
        slot = walk.state.slot
        self._waiting = len(walk.waiting)
        loads = row.instruction_class is Class.LDX
        base = walk.state.frame.regs[instruction.src if loads else instruction.dst]
        stores = row.instruction_class in (Class.ST, Class.STX)
        self._place = stack.place_of(base, instruction.offset) if loads or stores else None
        source = walk.subject.line(slot)
        if source and (place := (source.file, source.line)) != self._source:
            self._source = place
            self.line(f"; {source.text} @ {source.file.rsplit('/', 1)[-1]}:{source.line}")
        self.line(f"{slot}: {text.instruction(row, instruction, self._reference(walk, slot))}")

    def _reference(self, walk: "Walk", slot: int) -> str | None:
        reference = walk.subject.references.get(slot)
        if reference is None:
            return walk.subject.named.get(slot)
        return reference.map + (f"+{reference.offset}" if reference.offset is not None else "")

    def after(self, walk: "Walk", row: Row, instruction: Instruction, slot: int) -> None:
        """The registers and places that the instruction read or wrote, behind its line."""
        if row.instruction_class in (Class.JMP, Class.JMP32) and row.operation in (
            Operation.JA, Operation.EXIT, Operation.CALL_LOCAL, Operation.MAY_GOTO):  # fmt: skip
            return
        if len(walk.waiting) == self._waiting and walk.graph.after[slot][1:]:
            return  # a jump that went the one way it could
        read, written = uses(row, instruction)
        call = row.operation in (Operation.CALL_HELPER, Operation.CALL_BTF)
        registers = [0] if call else [index for index in range(REGISTERS) if (read | written) >> index & 1]
        places = [] if self._place is None else [self._place]
        shown = text.frame(walk.state.frame, registers, places)
        if shown and self.lines:
            self.lines[-1] = f"{self.lines[-1]:<{_COLUMN}}; {shown}"
