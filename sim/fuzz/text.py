"""A program while it is being made: lines, and labels for places that are not known yet."""

from dataclasses import dataclass

from bpfnic.sim.fuzz.program import Line, Program, make
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Row


class Label:
    """A place in a program that is being made; `line` once it is known."""

    line: int | None = None


@dataclass
class Text:
    """Lines that are being made."""

    lines: list[tuple[Instruction, Label | None]]

    def add(self, row: Row | str, target: Label | None = None, **fields: int) -> None:
        """An instruction of a row."""
        self.lines.append((make(row, **fields), target))

    def put(self, instruction: Instruction) -> None:
        """Any instruction, legal or not."""
        self.lines.append((instruction, None))

    def place(self, label: Label) -> None:
        """The label stands here."""
        label.line = len(self.lines)

    def program(self) -> Program:
        """The whole. Every label that is named must have been placed."""
        return Program(tuple(Line(instruction, label.line if label else None) for instruction, label in self.lines))
