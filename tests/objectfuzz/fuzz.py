"""Objects with parts changed, and all that can be done with one.

A mutant is a real object with a few changes: bytes and words of the file's header, of section headers, of symbols,
relocations, types and code; parts cut off, moved or repeated. Number n of a seed is always the same one."""

import random
import resource
import struct
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bpfnic.host import staticlink
from bpfnic.host.btf.command import checked
from bpfnic.host.btf.dump_c import dump_c
from bpfnic.host.btf.dump_raw import dump_raw
from bpfnic.host.btf.target import open_btf
from bpfnic.host.dump import Shown, render
from bpfnic.host.elf import Elf
from bpfnic.host.image import place_frames
from bpfnic.host.object import DeviceAddresses, open_object
from bpfnic.host.structure import check
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import encode

SECONDS = 5
MEMORY = 1 << 30
_HEADER_BYTES, _SECTION_BYTES = 64, 64
_WORDS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF,
          0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)  # fmt: skip


@dataclass(frozen=True)
class Original:
    """An object, and the parts of it that changes go to."""

    name: str
    raw: bytes
    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, path: Path) -> "Original":
        """Headers and what isn't debug information; small parts are as likely as large ones."""
        raw = path.read_bytes()
        (headers,) = struct.unpack_from("<Q", raw, 40)
        parts = [(0, _HEADER_BYTES), (headers, len(raw)), (headers, len(raw))]
        for section in Elf(path).sections:
            start, size = struct.unpack_from("<QQ", raw, headers + _SECTION_BYTES * section.number + 24)
            if section.data and not section.name.startswith((".debug", ".rel.debug")):
                parts.append((start, start + size))
        return cls(path.name, raw, tuple(parts))


def mutant(originals: Sequence[Original], seed: int, number: int) -> tuple[str, bytes]:
    """The name of an original, and what became of it."""
    chance = random.Random(f"{seed}/{number}")
    original = chance.choice(originals)
    raw = bytearray(original.raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        start, end = chance.choice(original.parts)
        at = chance.randrange(start, end)
        match chance.randrange(8):
            case 0 | 1:
                raw[at : at + 1] = bytes([chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))])
            case 2:
                raw[at : at + 1] = bytes([raw[at] ^ 1 << chance.randrange(8)]) if at < len(raw) else b""
            case 3 | 4:
                width = chance.choice((2, 4, 8))
                at -= at % width
                word = chance.choice((*_WORDS, chance.getrandbits(64), len(raw), len(raw) - 1)) & (1 << 8 * width) - 1
                raw[at : at + width] = word.to_bytes(width, "little")
            case 5:
                width = chance.choice((1, 8, 16, 24))
                other = chance.randrange(start, end)
                raw[at : at + width] = raw[other : other + width]
            case 6:
                width = chance.choice((8, 24, 64))
                raw[at : at + width] = bytes(len(raw[at : at + width]))
            case _ if chance.random() < 0.2:
                del raw[at:]
    return original.name, bytes(raw)


def exercise(path: Path, partner: Path) -> str:
    """All that is done with an object; what it says of it, "" where nothing is wrong. `partner` is linked with it."""
    said = []
    for use in (_raw, _c, checked):
        try:
            use(path)
        except BpfnicError as error:
            said.append(str(error))
    try:
        object = open_object(path)
    except BpfnicError as error:
        return "\n".join([*said, str(error)])
    addresses = DeviceAddresses({name: 16 for name in object.maps}, {name: 32 for name in object.maps})
    for definition in object.maps.values():
        try:
            definition.format_key(bytes(definition.key_size))
            definition.format_value(bytes(min(definition.value_size, 1 << 16)))
        except BpfnicError as error:
            said.append(str(error))
    for program in object.programs.values():
        try:
            code = program.link(addresses)
            check(code, program.name, program_type=program.type, line=program.line)
            encode(place_frames(code, program.name))
            for format in ("asm", "dot"):
                render(object, [Shown(program, program.instructions)], format)
        except BpfnicError as error:
            said.append(str(error))
    try:
        staticlink.link([partner, path])
    except BpfnicError as error:
        said.append(str(error))
    return "\n".join(said)


def _raw(path: Path) -> None:
    for _ in dump_raw(open_btf(path)):
        pass


def _c(path: Path) -> None:
    for _ in dump_c(open_btf(path)):
        pass


@dataclass(frozen=True)
class Finding:
    """What was wrong with what was said of a mutant."""

    number: int
    original: str
    why: str


def run(
    originals: Sequence[Original], path: Path, partner: Path, seed: int, number: int
) -> tuple[bool, Finding | None]:
    """Mutant `number`: whether it was refused, and what should not have come. `path`: where it is put."""
    name, raw = mutant(originals, seed, number)
    path.write_bytes(raw)
    began = time.process_time()
    why = said = ""
    try:
        said = exercise(path, partner)
    except Exception as error:  # whatever it is, it isn't one line for the user
        why = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - began
    if seconds > SECONDS:
        why = why or f"took {seconds:.1f} s"
    nameless = [line for line in said.splitlines() if not line.startswith((str(path), "program '", "map '"))]
    if nameless:
        why = why or f"a refusal that doesn't say of what: {nameless[0]!r}"
    return bool(said), Finding(number, name, why) if why else None


def share(task: tuple[list[Original], Path, int, int, int]) -> tuple[int, int, list[Finding], int]:
    """Mutants from one number on: how many, how many were refused, what was found, and the peak of memory in bytes."""
    originals, partner, seed, first, count = task
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
    refused, found = 0, []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            bad, finding = run(originals, Path(folder) / "mutant.o", partner, seed, number)
            refused += bad
            if finding:
                found.append(finding)
    return count, refused, found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
