"""Types as C declarations, as `bpftool btf dump file F format c` prints them (libbpf's btf_dump): a header from which a
compiler makes the same layouts.

Each type comes in two steps. *Order* collects the definitions that it needs, each behind those that it contains; a
structure that is reached through a pointer need not be defined first. *Emit* writes them, and before each the forward
declarations that its members need. Names that are used twice get ___2, ___3, …: a graph may have several types of a
name, C may not."""

from collections.abc import Iterator, Sequence

from bpfnic.host.btf.dump_order import arranged
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, QUALIFIERS, VOID, Kind, Type
from bpfnic.host.btf.layout import align_of, is_packed, padding, size_of
from bpfnic.spec.errors import BpfnicError

_HEAD = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif

#ifndef __ksym
#define __ksym __attribute__((section(".ksyms")))
#endif

#ifndef __weak
#define __weak __attribute__((weak))
#endif

#ifndef __bpf_fastcall
#if __has_attribute(bpf_fastcall)
#define __bpf_fastcall __attribute__((bpf_fastcall))
#else
#define __bpf_fastcall
#endif
#endif

"""
_TAIL = """\
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif

#endif /* __VMLINUX_H__ */
"""
_LARGEST_HOLE = 1 << 20  # bytes; each 8 become a line
_DEEPEST_INDENT = 13  # tabs: bpftool's
_WORDS = {Kind.VOLATILE: "volatile", Kind.CONST: "const", Kind.RESTRICT: "restrict"}
# Built into compilers for ARM; others need them defined.
_ALIASES = {"__Poly8_t": "unsigned char", "__Poly16_t": "unsigned short", "__Poly64_t": "unsigned long long",
            "__Poly128_t": "unsigned __int128"}  # fmt: skip
_BUILT_IN = "__builtin_va_list"


def dump_c(btf: Btf, roots: Sequence[int] = (), sort: bool = True) -> Iterator[str]:
    """The header, a piece at a time: the types `roots` and what they need, or all types, in an order that stays as it
    is when numbers change (`sort`) or in that of their numbers.

    Raises BpfnicError where the graph can't be said in C: an anonymous type that is in itself, a hole above 1 MiB."""
    writer = _Writer(btf)
    yield _HEAD
    try:
        for number in roots or (arranged(btf) if sort else range(1, len(btf))):
            yield writer.define(number)
        if not roots:
            yield writer.kernel_functions()
    except RecursionError:
        raise BpfnicError(f"{btf.where}: types nest too deeply to be said in C") from None
    yield _TAIL


class _Writer:
    def __init__(self, btf: Btf):
        self._btf = btf
        self._referenced = {VOID}
        for number in range(1, len(btf)):
            self._referenced.update(btf[number].references())
        self._ordered = {VOID}
        self._ordering: set[int] = set()
        self._queue: list[int] = []
        self._emitted = {VOID}
        self._emitting: set[int] = set()
        self._declared: set[int] = set()  # forward; of a typedef, which may be used through pointers by then
        self._names: dict[int, str] = {}  # of types, once they have one in C
        self._tags: dict[str, int] = {}  # how often each name was used: of struct, union, enum
        self._identifiers: dict[str, int] = {}  # of typedefs and enumerators
        self._text: list[str] = []

    def define(self, number: int) -> str:
        """All definitions, not yet written, that end in that type's."""
        self._text, self._queue = [], []
        self._order(number, False)
        for defined in self._queue:
            self._emit(defined, VOID)
        return "".join(self._text)

    # Order.

    def _order(self, number: int, through_pointer: bool) -> bool:
        """Whether what refers to the type needs its definition first."""
        if number in self._ordered:
            return True
        type = self._btf[number]
        if number in self._ordering:
            if type.kind in COMPOSITES and through_pointer and type.name:
                return False
            raise BpfnicError(f"{self._btf.where}: type {number} is in itself, which can't be said in C")
        match type.kind:
            case Kind.INT | Kind.FLOAT | Kind.FUNC | Kind.VAR | Kind.DATASEC | Kind.DECL_TAG:
                self._ordered.add(number)
                return False
            case Kind.PTR:
                first = self._order(type.target, True)
                self._ordered.add(number)
                return first
            case Kind.ARRAY:
                return self._order(type.target, False)
            case Kind.STRUCT | Kind.UNION:
                return self._order_composite(type, through_pointer)
            case Kind.ENUM | Kind.ENUM64 | Kind.FWD:
                if type.name or number not in self._referenced:
                    self._queue.append(number)
            case Kind.TYPEDEF:
                first = self._order(type.target, through_pointer)
                if through_pointer and not first:
                    return False
                self._queue.append(number)
            case Kind.FUNC_PROTO:
                results = [self._order(other, through_pointer) for other in type.references()]
                return any(results)
            case _:
                return self._order(type.target, through_pointer)
        self._ordered.add(number)
        return True

    def _order_composite(self, type: Type, through_pointer: bool) -> bool:
        if through_pointer and type.name:
            return False
        self._ordering.add(type.number)
        for member in type.parts:
            self._order(member.type, False)
        if type.name:
            self._queue.append(type.number)
        self._ordering.discard(type.number)
        self._ordered.add(type.number)
        return True

    # Emit.

    def _write(self, definition: str) -> None:
        self._text.append(f"{definition};\n\n")

    def _emit(self, number: int, container: int) -> None:
        """Writes a type's definition (`container` VOID), or what the type that is being defined needs of it."""
        if number in self._emitted:
            return
        type = self._btf[number]
        if number in self._emitting:
            self._emit_declaration(type, container)
            return
        match type.kind:
            case Kind.INT:
                if type.name in _ALIASES:
                    self._write(f"typedef {_ALIASES[type.name]} {type.name}")
                self._emitted.add(number)
            case Kind.ENUM | Kind.ENUM64:
                if container == VOID:
                    self._write(self._enum(type, 0))
                self._emitted.add(number)
            case Kind.FWD:
                self._write(self._forward(type))
                self._emitted.add(number)
            case Kind.TYPEDEF:
                self._emitting.add(number)
                self._emit(type.target, number)
                if number not in self._declared and type.name != _BUILT_IN:
                    self._write(self._typedef(type))
                self._emitted.add(number)
            case Kind.STRUCT | Kind.UNION:
                self._emit_composite(type, container)
            case Kind.FUNC_PROTO:
                for other in type.references():
                    self._emit(other, container)
            case Kind.PTR | Kind.ARRAY | Kind.VOLATILE | Kind.CONST | Kind.RESTRICT | Kind.TYPE_TAG:
                self._emit(type.target, container)

    def _emit_declaration(self, type: Type, container: int) -> None:
        """Of a type whose definition has begun and that is met again within."""
        if type.number in self._declared or type.kind in COMPOSITES and (type.number == container or not type.name):
            return
        if type.kind in COMPOSITES:
            self._write(self._tag(type))
        elif type.name != _BUILT_IN:
            self._write(self._typedef(type))
        self._declared.add(type.number)

    def _emit_composite(self, type: Type, container: int) -> None:
        number = type.number
        self._emitting.add(number)
        if container == VOID or not type.name:
            for member in type.parts:
                self._emit(member.type, number if type.name else container)
        elif number not in self._declared and number != container:
            self._write(self._tag(type))
            self._declared.add(number)
        if container == VOID:
            self._write(self._composite(type, 0))
            self._emitted.add(number)
        self._emitting.discard(number)

    # Names.

    def _name(self, type: Type) -> str:
        """The name that a type goes by in C."""
        if not type.name or type.kind is Kind.FWD or type.kind is Kind.ENUM and not type.parts:
            return type.name
        if type.number not in self._names:
            used = self._identifiers if type.kind is Kind.TYPEDEF else self._tags
            self._names[type.number] = _unique(used, type.name)
        return self._names[type.number]

    def _tag(self, type: Type) -> str:
        return f"{type.kind.name.lower()} {self._name(type)}".rstrip()

    def _forward(self, type: Type) -> str:
        return f"{'union' if type.flag else 'struct'} {type.name}"

    # Definitions.

    def _typedef(self, type: Type) -> str:
        name = self._name(type)
        if type.target == VOID and name == "__gnuc_va_list":  # old compilers forget of what
            return f"typedef {_BUILT_IN} {name}"
        return f"typedef {self.declaration(type.target, name, 0)}"

    def _enum(self, type: Type, level: int) -> str:
        text = f"enum {self._name(type)}".rstrip()
        if not type.parts:
            return text
        wide = ("LL" if type.flag else "ULL") if type.kind is Kind.ENUM64 else ""
        values = "".join(f"{_indent(level + 1)}{_unique(self._identifiers, part.name)} = {part.value}{wide},"
                         for part in type.parts)  # fmt: skip
        text += f" {{{values}{_indent(level)}}}"
        if type.size == 1:
            return text + " __attribute__((mode(byte)))"
        if type.size == 8 and not any(part.value >> 32 for part in type.parts):  # which 8 bytes would not come of
            return text + " __attribute__((mode(word)))"
        return text

    def _composite(self, type: Type, level: int) -> str:
        packed = type.kind is Kind.STRUCT and is_packed(self._btf, type)
        text, end, after_bits = f"{self._tag(type)} {{", 0, False
        for member in type.parts:
            align = 1 if packed else align_of(self._btf, member.type)
            text += self._padding(type, end, member.offset, align, after_bits and member.bits > 0, level + 1)
            text += _indent(level + 1) + self.declaration(member.type, member.name, level + 1)
            after_bits = member.bits > 0
            if after_bits:
                text += f": {member.bits}"
            end = member.offset + (member.bits or 8 * size_of(self._btf, member.type))
            text += ";"
        if type.kind is Kind.STRUCT:
            text += self._padding(type, end, 8 * type.size, align_of(self._btf, type.number), False, level + 1)
        text += _indent(level) + "}" if type.parts or type.size else "}"
        return text + " __attribute__((packed))" if packed else text

    def _padding(self, type: Type, start: int, end: int, align: int, in_bits: bool, level: int) -> str:
        if end - start > 8 * _LARGEST_HOLE:
            hole = f"a hole of {(end - start) // 8} bytes, above {_LARGEST_HOLE}"
            raise BpfnicError(f"{self._btf.where}: type {type.number} {type.name!r} has {hole}")
        pads = padding(start, end, align, in_bits, self._btf.pointer_bytes)
        return "".join(f"{_indent(level)}{name}: {bits};" for name, bits in pads)

    # Declarations.

    def declaration(self, number: int, name: str, level: int) -> str:
        """What C writes to say that `name` is of a type, at that depth of indent."""
        chain = [number]
        while (type := self._btf[chain[-1]]).kind in QUALIFIERS or type.kind in (Kind.PTR, Kind.ARRAY, Kind.FUNC_PROTO):
            chain.append(type.target)
        return self._declare(chain, name, level)

    def _qualifiers(self, chain: list[int]) -> str:
        """Those at the chain's end, which C writes before what they qualify; they are taken off."""
        text = ""
        while chain and (kind := self._btf[chain[-1]].kind) in _WORDS:
            text += _WORDS[kind] + " "
            chain.pop()
        return text

    def _drop_qualifiers(self, chain: list[int]) -> None:
        """Of an array or a function, which compilers make of those of its element, or of noreturn."""
        while chain and self._btf[chain[-1]].kind in QUALIFIERS:
            chain.pop()

    def _declare(self, chain: list[int], name: str, level: int) -> str:
        """From the innermost type, at the chain's end, outwards; an array or function encloses what remains."""
        text, after_pointer = "", True
        while chain:
            type = self._btf[chain.pop()]
            match type.kind:
                case Kind.PTR:
                    text += "*" if after_pointer else " *"
                case Kind.VOLATILE | Kind.CONST | Kind.RESTRICT:
                    text += " " + _WORDS[type.kind]
                case Kind.TYPE_TAG:
                    text += self._qualifiers(chain)
                    attribute = type.name if type.flag else f'btf_type_tag("{type.name}")'
                    text += f" __attribute__(({attribute}))"
                case Kind.ARRAY:
                    self._drop_qualifiers(chain)
                    return text + self._array(type, chain, name, level, after_pointer)
                case Kind.FUNC_PROTO:
                    self._drop_qualifiers(chain)
                    if chain:
                        text += f" ({self._declare(chain, name, level)})"
                    else:
                        text += _separate(name, after_pointer)
                    return f"{text}({self._parameters(type, level)})"
                case _:
                    text += self._qualifiers(chain) + self._plain(type, level)
            after_pointer = type.kind is Kind.PTR
        return text + _separate(name, after_pointer)

    def _array(self, type: Type, chain: list[int], name: str, level: int, after_pointer: bool) -> str:
        if not chain:
            return f"{_separate(name, after_pointer)}[{type.count}]"
        several = self._btf[chain[-1]].kind is Kind.ARRAY
        space = " " if name and not after_pointer else ""
        inner = self._declare(chain, name, level)
        return f"{space}{inner if several else f'({inner})'}[{type.count}]"

    def _parameters(self, type: Type, level: int) -> str:
        if not type.parts or (len(type.parts) == 1 and type.parts[0].type == VOID):
            return "void"
        *first, last = type.parts
        texts = [self.declaration(part.type, part.name, level) for part in first]
        texts.append("..." if last.type == VOID else self.declaration(last.type, last.name, level))
        return ", ".join(texts)

    def _plain(self, type: Type, level: int) -> str:
        """A type's name, or the definition of one that has none."""
        match type.kind:
            case Kind.UNKN:
                return "void"
            case Kind.STRUCT | Kind.UNION:
                return self._tag(type) if type.name else self._composite(type, level)
            case Kind.ENUM | Kind.ENUM64:
                return f"enum {self._name(type)}" if type.name else self._enum(type, level)
            case Kind.FWD:
                return self._forward(type)
            case Kind.TYPEDEF:
                return self._name(type)
            case Kind.INT | Kind.FLOAT:
                return type.name
        what = f"type {type.number} {type.name!r} ({type.kind.name})"
        raise BpfnicError(f"{self._btf.where}: {what} is no part of another")

    def kernel_functions(self) -> str:
        """Those that programs may call, which are marked by tags."""
        tagged: dict[str, list[Type]] = {"bpf_kfunc": [], "bpf_fastcall": []}
        for number in range(1, len(self._btf)):
            tag = self._btf[number]
            if tag.kind is Kind.DECL_TAG and tag.component == -1 and tag.name in tagged:
                tagged[tag.name] += [self._btf[tag.target]] if self._btf[tag.target].kind is Kind.FUNC else []
        text = "\n/* BPF kfuncs */\n#ifndef BPF_NO_KFUNC_PROTOTYPES\n"
        fast = {type.number for type in tagged["bpf_fastcall"]}
        for type in sorted(tagged["bpf_kfunc"], key=lambda type: type.name):
            mark = "__bpf_fastcall " if type.number in fast else ""
            text += f"extern {mark}{self.declaration(type.target, type.name, 0)} __weak __ksym;\n"
        return text + "#endif\n\n"


def _indent(level: int) -> str:
    return "\n" + "\t" * min(level, _DEEPEST_INDENT)


def _separate(name: str, after_pointer: bool) -> str:
    return f" {name}" if name and not after_pointer else name


def _unique(used: dict[str, int], name: str) -> str:
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}___{used[name]}"
