"""CO-RE (compile once, run everywhere): the numbers that a program's relocations ask for, from the types of what the
program is to run on.

For each relocation the types of the same name and kind are looked at (candidates: flavours don't count); those in which
the access is found must all give the same number. Where none does, existence is 0 and so are sizes and numbers of
types; what can't be said otherwise poisons the instruction. (libbpf: bpf_core_calc_relo_insn.)"""

from dataclasses import dataclass

from bpfnic.host.btf.access import Access, CoreKind, local_access, matched, size_of
from bpfnic.host.btf.compatible import same_kind, types_are_compatible, types_match
from bpfnic.host.btf.extension import CoreRelocation
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import ENUMS, Kind, Type
from bpfnic.host.btf.naming import essential
from bpfnic.spec.errors import BpfnicError

_WIDEST = 8  # bytes that one load reads


@dataclass(frozen=True, slots=True)
class Value:
    """The number that an instruction has (`old`) and is to have (`new`), 64 bits unsigned, None where it is poisoned.
    `checked`: the instruction must have `old`. `old_size`, `new_size`: bytes of the field that a load or store
    accesses, 0 where that isn't known; `resizable`: the new size reads the same value."""

    new: int | None
    old: int = 0
    checked: bool = True
    old_size: int = 0
    new_size: int = 0
    resizable: bool = True


class Relocator:
    """Fits the programs of one object, with types `local`, to `target`."""

    def __init__(self, local: Btf, target: Btf):
        self._local, self._target = local, target
        self._candidates: dict[int, list[int]] = {}  # by the program's type
        self._by_name: dict[str, list[int]] | None = None  # of the target, by names without flavours

    def value(self, relocation: CoreRelocation) -> Value:
        """Raises BpfnicError: the relocation doesn't fit the program's own types, or candidates contradict."""
        try:
            kind = CoreKind(relocation.kind)
        except ValueError:
            raise BpfnicError(f"a CO-RE relocation of unknown kind {relocation.kind}") from None
        type = self._local[relocation.type]
        local = local_access(self._local, relocation)
        if kind is CoreKind.TYPE_ID_LOCAL:
            return Value(relocation.type, checked=False)
        if not type.name:
            raise BpfnicError(f"{kind.name} of a type that has no name")
        found: list[tuple[int, Access, Value]] = []
        for candidate in self._candidates.setdefault(type.number, self._named(type)):
            access = self._matched(local, kind, candidate)
            if access is None:
                continue
            value = _value(kind, local, access)
            found.append((candidate, access, value))
            if access.bits != found[0][1].bits or value.new != found[0][2].new:
                raise BpfnicError(f"{kind.name} of {type.name!r}: types {found[0][0]} and {candidate} of "
                                  f"{self._target.where} contradict each other")  # fmt: skip
        if not found:
            return _value(kind, local, None)
        self._candidates[type.number] = [candidate for candidate, _, _ in found]
        return found[0][2]

    def _matched(self, local: Access, kind: CoreKind, candidate: int) -> Access | None:
        if kind.of_field or kind.of_enumerator:
            return matched(local, kind, self._target, candidate)
        same = types_match if kind is CoreKind.TYPE_MATCHES else types_are_compatible
        return Access(self._target, candidate) if same(self._local, local.root, self._target, candidate) else None

    def _named(self, type: Type) -> list[int]:
        if self._by_name is None:
            self._by_name = {}
            for number, (_, name) in self._target.headings():
                if name:
                    self._by_name.setdefault(essential(name), []).append(number)
        return [number for number in self._by_name.get(essential(type.name), ())
                if same_kind(type, self._target[number])]  # fmt: skip


def _value(kind: CoreKind, local: Access, target: Access | None) -> Value:
    if kind is CoreKind.FIELD_EXISTS or kind is CoreKind.ENUMVAL_EXISTS:
        return Value(int(target is not None), 1)
    if kind is CoreKind.ENUMVAL_VALUE:
        return Value(_enumerator(target) if target else None, _enumerator(local))
    if not kind.of_field:
        return _of_type(kind, local, target)
    old, old_size, old_type, checked = _field(kind, local)
    if target is None:
        return Value(None, old, checked)
    new, new_size, new_type, _ = _field(kind, target)
    return Value(new, old, checked, old_size, new_size, old_size == new_size or _resizable(old_type, new_type))


def _enumerator(access: Access) -> int:
    (step,) = access.steps
    enumeration = access.btf[step.type]
    value = enumeration.parts[step.index].value
    if enumeration.kind is Kind.ENUM:  # a C int, as the instructions of clang have it
        value = (value & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
    return value & (1 << 64) - 1


def _of_type(kind: CoreKind, local: Access, target: Access | None) -> Value:
    if kind is CoreKind.TYPE_SIZE:
        return Value(size_of(target.btf, target.root) if target else 0, size_of(local.btf, local.root))
    if kind is CoreKind.TYPE_ID_TARGET:  # of which linkers may have changed the old one
        return Value(target.root if target else 0, checked=False)
    return Value(int(target is not None), 1)


def _field(kind: CoreKind, access: Access) -> tuple[int, int, Type | None, bool]:
    """The number, the bytes that a load or store of the field accesses and its type (of an offset alone), and whether
    compilers agree on the number: of a bitfield they needn't."""
    btf, member = access.btf, access.member
    if member is None:
        return _element(kind, access)
    type = btf.resolve(member.type)
    if member.bits:
        first, size = _load(access.bits, member.bits, type.size)
        bits = member.bits
    else:
        first, size = access.bits // 8, size_of(btf, member.type)
        bits = 8 * size
    match kind:
        case CoreKind.FIELD_BYTE_OFFSET:
            return (first, 0, None, False) if member.bits else (first, _scalar_size(btf, type), type, True)
        case CoreKind.FIELD_BYTE_SIZE:
            return size, 0, None, not member.bits
        case CoreKind.FIELD_SIGNED:
            return int((type.kind is Kind.INT or type.kind in ENUMS) and type.signed), 0, None, True
        case CoreKind.FIELD_LSHIFT_U64:
            return 64 - (access.bits + bits - 8 * first) & (1 << 64) - 1, 0, None, not member.bits
    return 64 - bits & (1 << 64) - 1, 0, None, True


def _element(kind: CoreKind, access: Access) -> tuple[int, int, Type | None, bool]:
    type = access.btf.resolve(access.steps[-1].type)
    if kind is CoreKind.FIELD_BYTE_OFFSET:
        return access.bits // 8, _scalar_size(access.btf, type), type, True
    if kind is CoreKind.FIELD_BYTE_SIZE:
        return size_of(access.btf, type.number), 0, None, True
    raise BpfnicError(f"{kind.name} of an element of an array")


def _load(first: int, bits: int, size: int) -> tuple[int, int]:
    """First byte and size of the smallest aligned load, of the declared size or more, that has the whole bitfield."""
    size = size or 1
    while first + bits > 8 * (first // 8 // size * size + size):
        if size >= _WIDEST:
            raise BpfnicError("a bitfield that no load of 8 bytes reads as a whole")
        size *= 2
    return first // 8 // size * size, size


def _scalar_size(btf: Btf, type: Type) -> int:
    """Bytes of one element of what may be an array: a load reads one."""
    while type.kind is Kind.ARRAY:
        type = btf.resolve(type.target)
    return size_of(btf, type.number)


def _resizable(old: Type | None, new: Type | None) -> bool:
    """Pointers, and unsigned numbers: loads clear what is above. (None: a bitfield.)"""
    if old is None or new is None:
        return False
    if old.kind is new.kind is Kind.PTR:
        return True
    return old.kind is new.kind is Kind.INT and old.encoding != 1 and new.encoding != 1
