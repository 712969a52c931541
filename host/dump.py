"""The job `bpfnic dump`: programs as text that leads back to their bytes.

`asm`: what spec.assembly assembles, with the source, numbers, and names of maps and functions in comments; `hex`: an
instruction a line; `dot`: Graphviz, a box for each block of instructions. What is shown is the program with its
functions behind it, as the linker makes it, with 0 for what isn't known before it is loaded; or as it lies in a
device's program store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bpfnic.host import listing
from bpfnic.host.btf.patch import POISON
from bpfnic.host.nic import Nic
from bpfnic.host.object import Object, Program
from bpfnic.host.registermaps import RegisterProgram
from bpfnic.host.source import Source
from bpfnic.host.structure import Code, jump_target
from bpfnic.spec import helpers, isa
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Operation, Row

FORMATS = ("asm", "hex", "dot")
_COMMENT = 48  # column


@dataclass(frozen=True, kw_only=True)
class Job(Source):
    """What the command line asks for. `backend`: as it lies on a device, "" for none."""

    format: str = "asm"
    backend: str = ""


@dataclass(frozen=True)
class Shown:
    """A program and its code, an entry a slot; `base`: the slot of the program store where it lies."""

    program: Program
    code: Code
    base: int = 0

    def at(self, slot: int) -> tuple[Row, Instruction]:
        """An instruction and its row. Raises BpfnicError that names program and slot for an illegal one."""
        instruction = self.code[slot]
        assert instruction
        try:
            return isa.find(instruction), instruction
        except BpfnicError as error:
            raise BpfnicError(f"program {self.program.name!r}, instruction {slot}: {error}") from None

    def text(self, slot: int) -> str:
        """An instruction as the assembler takes it."""
        row, instruction = self.at(slot)
        return disassemble(instruction, row)

    def slots(self) -> Iterator[int]:
        """Where instructions begin."""
        return (slot for slot, instruction in enumerate(self.code) if instruction is not None)

    def target(self, slot: int) -> int | None:
        """The slot that a jump, or a call within the program, leads to."""
        row, instruction = self.at(slot)
        if row.operation in (Operation.CALL_LOCAL, Operation.CALL_FIRMWARE):
            return slot + 1 + instruction.imm
        return jump_target(slot, row, instruction)

    def note(self, slot: int) -> str:
        """What a number stands for: a map, a place in variables, a helper, a function, where a jump leads."""
        reference = self.program.references.get(slot)
        if reference:
            return reference.map + ("" if reference.offset is None else f" + {reference.offset}")
        row, instruction = self.at(slot)
        if row.operation is Operation.CALL_HELPER:
            if instruction.imm == POISON:
                return "a CO-RE relocation that found nothing"
            return f"bpf_{helpers.find(instruction.imm).name}"
        target = self.target(slot)
        if target is None:
            return ""
        return self.program.functions.get(target, f"to {target}")


def run(job: Job) -> str:
    """The text. Raises BpfnicError for anything that can't be used."""
    object = job.open()
    programs = job.chosen(object)
    shown = [_loaded(object, program, job.backend) if job.backend else Shown(program, program.instructions)
             for program in programs]  # fmt: skip
    return render(object, shown, job.format)


def _loaded(object: Object, program: Program, backend: str) -> Shown:
    with Nic(backend) as nic:
        loaded = nic.load(object, program.name).loaded
        if not isinstance(loaded, RegisterProgram):
            raise BpfnicError(f"--backend {backend}: what the kernel made of a program is its own: use "
                              "`bpftool prog dump xlated`")  # fmt: skip
        return Shown(loaded.whole, loaded.image, loaded.entry)


def render(object: Object, shown: Sequence[Shown], format: str) -> str:
    """The text of programs of one object."""
    match format:
        case "hex":
            parts = [_hex(each, named=len(shown) > 1) for each in shown]
        case "dot":
            parts = ["digraph programs {", '\tnode [shape=box, fontname="monospace"];',
                     *(_dot(number, each) for number, each in enumerate(shown)), "}"]  # fmt: skip
        case _:
            parts = [_asm(object, each) for each in shown]
    return "\n".join(parts)


def _head(object: Object, shown: Shown) -> str:
    program = shown.program
    kind = program.type.name if program.type else "no type"
    version = f", version {object.version:#x}" if object.version else ""
    place = f", at slot {shown.base}" if shown.base else ""
    return (f'; program {program.name}: section {program.section!r}, {kind}, license "{program.license}"{version}, '
            f"{len(shown.code)} slots{place}")  # fmt: skip


def _asm(object: Object, shown: Shown) -> str:
    lines = [_head(object, shown)]
    last = ""
    for slot in shown.slots():
        if slot and slot in shown.program.functions:
            lines.append(f"; function {shown.program.functions[slot]}")
        source = listing.source(shown.program, slot)
        if source != last and source:
            lines.append(f"; {source}")
        last = source
        note = shown.note(slot)
        lines.append(f"\t{shown.text(slot):{_COMMENT}}; {slot}{f': {note}' if note else ''}")
    return "\n".join(lines)


def _hex(shown: Shown, named: bool) -> str:
    lines = [f"; program {shown.program.name}"] if named else []
    return "\n".join([*lines, *(_encoded(shown, slot).hex(" ") for slot in shown.slots())])


def _encoded(shown: Shown, slot: int) -> bytes:
    instruction = shown.code[slot]
    assert instruction
    return instruction.encode()


_ENDS = (Operation.EXIT, Operation.JA)


def blocks(shown: Shown) -> dict[int, list[int]]:
    """The slots of each block, by its first: instructions that run one after the other."""
    starts = {0, *shown.program.functions}
    slots = list(shown.slots())
    for slot, following in zip(slots, [*slots[1:], len(shown.code)], strict=True):
        row, instruction = shown.at(slot)
        if (target := jump_target(slot, row, instruction)) is not None:
            starts |= {target, following}
        elif row.operation is Operation.EXIT:
            starts.add(following)
    found: dict[int, list[int]] = {}
    for slot in slots:
        if slot in starts:
            first = slot
        found.setdefault(first, []).append(slot)
    return found


def _dot(number: int, shown: Shown) -> str:
    lines = [f"\tsubgraph cluster_{number} {{", f'\t\tlabel="{_quoted(shown.program.name)}";']
    found = blocks(shown)
    for first, slots in found.items():
        texts = []
        last = ""
        for slot in slots:
            source = listing.source(shown.program, slot)
            if source and source != last:
                texts.append(f"; {source}")
            last = source
            note = shown.note(slot)
            texts.append(f"{shown.text(slot)}  ; {slot}{f': {note}' if note else ''}")
        label = "".join(f"{_quoted(text)}\\l" for text in texts)
        lines.append(f'\t\tp{number}_{first} [label="{label}"];')
    for first, slots in found.items():
        for to, style in _edges(shown, slots):
            lines.append(f"\t\tp{number}_{first} -> p{number}_{to}{style};")
    return "\n".join([*lines, "\t}"])


def _edges(shown: Shown, slots: Sequence[int]) -> Iterator[tuple[int, str]]:
    """Where a block leads: jumps, what follows it, and dashed the functions that it calls."""
    for slot in slots:
        target = shown.target(slot)
        if target in shown.program.functions and target is not None:
            yield target, " [style=dashed]"
    end = slots[-1]
    row, instruction = shown.at(end)
    target = jump_target(end, row, instruction)
    if target is not None and target not in shown.program.functions:
        yield target, ' [label="taken"]' if row.operation is not Operation.JA else ""
    following = end + instruction.slots
    if row.operation not in _ENDS and following < len(shown.code):
        yield following, ""


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
