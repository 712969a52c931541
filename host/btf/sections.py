"""Sections of variables (DATASEC) as they are in memory. Compilers leave sizes and places 0, for linkers may move
variables; loaders fill them in before a kernel sees the types (libbpf: btf_fixup_datasec)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bpfnic.host.btf.kinds import Kind, Type
from bpfnic.host.elf import Elf
from bpfnic.host.maptable import LARGEST_SECTION


def laid_out(types: Sequence[Type], elf: Elf) -> Iterator[Type]:
    """The types with sizes of sections as in the file, and their variables at their symbols, in order. A section that
    the file doesn't have (.ksyms) stays as it is. Raises BpfnicError: a symbol outside its section, a section of over
    1 GiB."""
    known = {type.number: type.name for type in types if type.kind is Kind.VAR}
    for type in types:
        section = elf.section(type.name) if type.kind is Kind.DATASEC else None
        if section is None:
            yield type
            continue
        found = elf.symbols_by_section.get(section.number, ())
        if found and found[-1].value > section.size:
            where = f"{found[-1].name!r} lies at byte {found[-1].value} of {section.size}"
            raise elf.refuse(f"section {section.name!r}: {where}")
        if section.size > LARGEST_SECTION:
            raise elf.refuse(f"section {section.name!r}: {section.size} bytes, above {LARGEST_SECTION}")
        symbols = {symbol.name: symbol.value for symbol in found}
        parts = (replace(part, offset=symbols.get(known.get(part.type, ""), part.offset)) for part in type.parts)
        yield replace(type, size=section.size, parts=tuple(sorted(parts, key=lambda part: part.offset)))
