"""The verifier's log, in the format of Linux's (kernel: print_verifier_state, print_insn_state, verbose).

What an instruction read and wrote is printed late, as in Linux: before the next instruction, behind the line of its own
if nothing came in between, and not at all where the path ends there."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from bpfnic.host.verifier import text
from bpfnic.host.verifier.graph import uses
from bpfnic.host.verifier.state import Checkpoint, State
from bpfnic.host.verifier.values import STACK
from bpfnic.spec.addresses import STACK_BYTES
from bpfnic.spec.isa import REGISTERS, Class, Operation, Row

if TYPE_CHECKING:
    from bpfnic.host.verifier.precision import Needed
    from bpfnic.host.verifier.walk import Walk

_COLUMN, _STEP = 40, 8
LARGEST = 1 << 26
"""Characters that are kept besides the last lines; Linux's user gives a buffer's size instead."""
_CALLS = (Operation.CALL_HELPER, Operation.CALL_BTF, Operation.CALL_LOCAL)
_UNPRINTED = (Operation.JA, Operation.MAY_GOTO, Operation.EXIT)
_CALLER_SAVED = 0b111111
_ALL = (1 << REGISTERS) - 1


Position = tuple[int, str, int]
"""How many lines there are, the last one, and the characters of all."""


class Log:
    """`level` 0: the error and the sums; 1: the path that leads to the error, too; 2: all paths, and where numbers that
    must be exact come from."""

    def __init__(self, level: int = 0):
        self.level = level
        self.lines: list[str] = []
        self._size = 0
        self._source: object = None
        self._touched = 0
        self._places: set[int] | None = set()
        self._last = -1
        """The line of the last instruction, -1 when its state was printed."""
        self._resumed = False

    def line(self, line: str) -> None:
        if self._size < LARGEST:
            self.lines.append(line)
            self._size += len(line)
        elif self.level > 1:
            self.lines.append(f"(the log ends here: it has {LARGEST >> 20} MB)")
            self.level = 0

    def end(self, lines: Iterable[str]) -> None:
        """What every log ends with."""
        self.lines += lines

    def begin(self, walk: "Walk") -> None:
        """A program's paths, or those of a global function, from here on."""
        if self.level > 1 and not walk.state.slot:
            for number, entry in enumerate(walk.graph.entries):
                self.line(f"func#{number} @{entry}")
            self._live(walk)
        self._all()

    def _live(self, walk: "Walk") -> None:
        """Registers that are read later, before each instruction."""
        self.line("Live regs before insn:")
        for slot, instruction in enumerate(walk.code):
            row = walk.graph.rows[slot]
            if row and instruction:
                bits = "".join(str(index) if walk.graph.live[slot] >> index & 1 else "." for index in range(10))
                loop = "  1" if walk.graph.loop[slot] else "   "
                self.line(f"{loop} {slot:3}: {bits} {_shown(walk, slot)}")

    def safe(self, state: State) -> None:
        """The path is covered by an earlier one."""
        if self.level:
            if self._resumed:
                self.line("")
                self.line(f"from {state.previous} to {state.slot}: safe")
            else:
                self.line(f"{state.slot}: safe")

    def position(self) -> Position:
        """Where the log stands."""
        return len(self.lines), self.lines[-1] if self.lines else "", self._size

    def accepted(self) -> None:
        """There is no error that a path led to."""
        if self.level == 1:
            self.lines.clear()

    def back(self, position: Position) -> None:
        """A path that waited is taken up, from where the log stood at `position`."""
        if self.level == 1:
            count, last, self._size = position
            self.lines[max(count - 1, 0) :] = [last] if count else []
            self._last = -1
        self._resumed = True
        self._all()

    def before(self, walk: "Walk") -> None:
        """An instruction that is about to be walked."""
        state = walk.state
        slot = state.slot
        if self._resumed and self.level > 1:
            self.line("")
            self.line(f"from {state.previous} to {slot}: {text.state(state)}")
            self._last = -1
        self._resumed = False
        if self._touched or self._places or self._places is None:
            self._print(state, slot)
        source = walk.subject.line(slot)
        if source and (place := (source.file, source.line)) != self._source:
            self._source = place
            self.line(f"; {source.text} @ {source.file.rsplit('/', 1)[-1]}:{source.line}")
        self._last = len(self.lines)
        self.line(f"{slot}: {_shown(walk, slot)}")
        self._note(walk)

    def _note(self, walk: "Walk") -> None:
        """What the instruction will read and write."""
        state = walk.state
        row, instruction = walk.graph.rows[state.slot], walk.code[state.slot]
        assert row and instruction
        kind = row.instruction_class
        read, written = uses(row, instruction)
        if row.operation in _UNPRINTED:
            read = written = 0
        self._touched |= _CALLER_SAVED if row.operation in _CALLS else read | written
        if kind in (Class.LDX, Class.ST, Class.STX):
            loads = kind is Class.LDX or row.operation is Operation.LOAD_ACQUIRE
            base = state.frame.regs[instruction.src if loads else instruction.dst]
            if base.kind is STACK and base.frame == state.frame.number:
                low = base.off + instruction.offset + base.number.smin
                self.places(low, base.number.smax - base.number.smin + row.width // 8)

    def places(self, low: int, size: int) -> None:
        """Bytes of the stack that an instruction accesses, from this distance from r10 on."""
        if self._places is not None:
            first, end = max(low, -STACK_BYTES), min(low + size, 0)
            self._places |= {-(at // 8) - 1 for at in range(first, end)}

    def _all(self) -> None:
        self._touched, self._places = _ALL, None

    def after(self, walk: "Walk", row: Row, slot: int) -> None:
        """The instruction has been walked."""
        state, kind = walk.state, row.instruction_class
        if row.operation is Operation.EXIT:
            self._resumed = True
        if kind not in (Class.JMP, Class.JMP32) or row.operation in _UNPRINTED:
            return
        if row.operation in _CALLS:
            if len(state.frames) > 1 and state.frame.call == slot:  # a function of the program was entered
                self.line("caller:")
                self.line(f" {text.state(state, -2)}")
                self.line("callee:")
                self.line(f" {text.state(state)}")
                self._all()
        elif not walk.ended:
            self._print(state, slot)

    def leaves(self, state: State) -> None:
        """A function has ended, and its caller isn't yet under way again."""
        if self.level:
            self.line("returning from callee:")
            self.line(f" {text.state(state)}")

    def returned(self, state: State) -> None:
        """The caller is."""
        if self.level:
            self.line(f"to caller at {state.slot}:")
            self.line(f" {text.state(state)}")

    def called_back(self) -> None:
        """A helper may call a function of the program, which waits."""
        self._all()

    def _print(self, state: State, slot: int) -> None:
        """The registers and places that were touched."""
        registers = [index for index in range(REGISTERS) if self._touched >> index & 1]
        shown = text.state(state, registers=registers, places=self._places)
        if self._last == len(self.lines) - 1 and self.lines:
            before = self.lines[-1]
            column = max(len(before) + 5, _COLUMN)
            column += -column % _STEP - 2
            self.lines[-1] = f"{before:<{column}}; {shown}"
        else:
            self.line(f"{slot}: {shown}")
        self._last, self._touched, self._places = -1, 0, set()

    # Where numbers that must be exact come from.

    def backtracks(self, function: int, last: int, first: int, behind: int) -> None:
        """From behind the instruction at slot `last` to before that at `first`; `behind`: what followed, -1 nothing."""
        self.line(f"mark_precise: frame{function}: last_idx {last} first_idx {first} subseq_idx {behind} ")

    def backtracked(self, walk: "Walk", function: int, slot: int, needed: "Needed") -> None:
        """What is needed behind that instruction."""
        self.line(f"mark_precise: frame{function}: {_needed(needed, function)} before {slot}: {_shown(walk, slot)}")

    def backtracked_checkpoint(self, checkpoint: Checkpoint, function: int, needed: "Needed") -> None:
        """What is needed in a checkpoint that wasn't before."""
        for number in range(min(function, len(checkpoint.state.frames) - 1), -1, -1):
            precise = checkpoint.precise_regs[number], checkpoint.precise_places[number]
            state = text.state(checkpoint.state, number, precise=precise)
            self.line(f"mark_precise: frame{number}: parent state {_needed(needed, number)}:  {state}")

    def propagates(self, needed: "Needed", count: int) -> None:
        """What an earlier state needed, this one needs."""
        for number in range(count - 1, -1, -1):
            names = [*_registers(needed.regs[number]), *(f"fp{place}" for place in _places(needed.places[number]))]
            if names:
                self.line(f"frame {number}: propagating {','.join(names)}")


def _shown(walk: "Walk", slot: int) -> str:
    row, instruction = walk.graph.rows[slot], walk.code[slot]
    assert row and instruction
    reference = walk.subject.references.get(slot)
    name = walk.subject.named.get(slot)
    if reference is not None:
        name = reference.map + (f"+{reference.offset}" if reference.offset is not None else "")
    return text.instruction(row, instruction, name)


def _registers(bits: int) -> Collection[str]:
    return [f"r{index}" for index in range(REGISTERS) if bits >> index & 1]


def _places(bits: int) -> Collection[str]:
    return [str(-8 * (index + 1)) for index in range(bits.bit_length()) if bits >> index & 1]


def _needed(needed: "Needed", number: int) -> str:
    return f"regs={','.join(_registers(needed.regs[number]))} stack={','.join(_places(needed.places[number]))}"
