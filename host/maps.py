"""Maps as programs expect them, and global variables. maptable.py reads both from an object.

A section of global variables (`.rodata`, `.data`, `.bss` and their kin) is an array map of one entry, named like its
section; `Globals` gives its variables by name, to be set before it is loaded."""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from bpfnic.host import netaddress
from bpfnic.host.btf import VOID, Btf
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import DEVMAPS, EVENTS, LPM_LENGTH_BYTES, OF_MAPS, REDIRECT_MAPS, MapFlag, MapType

PROG_ARRAY = MapType.PROG_ARRAY
INDEXED = REDIRECT_MAPS | {PROG_ARRAY}


@dataclass
class MapDefinition:
    """A map as a program expects it, to be changed until it is created (`max_entries`).

    Sizes in bytes. `key_type` and `value_type` are types in `btf`, 0 where the object doesn't say. `pinned`: the
    object asks for LIBBPF_PIN_BY_NAME. `inner`: what the values of a map of maps look like. `variables`: of a section
    of global variables, whose content is to be put at key 0; such a map with MapFlag.RDONLY_PROG is frozen then.
    `programs`: of a PROG_ARRAY, the programs of the object that are to be put into it, by name; `maps`: of a map of
    maps, in the same way."""

    name: str
    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: MapFlag = MapFlag(0)
    btf: Btf | None = None
    key_type: int = VOID
    value_type: int = VOID
    pinned: bool = False
    inner: "MapDefinition | None" = None
    variables: "Globals | None" = None
    programs: dict[int, str] = field(default_factory=dict)
    maps: dict[int, str] = field(default_factory=dict)

    @property
    def constants(self) -> bytes | None:
        """What the map holds for good: the constants of an object. None of all other maps."""
        if self.variables is None or MapFlag.RDONLY_PROG not in self.flags:
            return None
        return bytes(self.variables.content)

    def format_key(self, data: bytes) -> Any:
        """A key as a Python value, by its BTF type; as hex bytes ("0a 00 00 00") where the object has none; a record's
        number; of an LPM_TRIE of IPv4 or IPv6 addresses a prefix ("10.0.0.0/8")."""
        if self._has_prefixes:
            length = int.from_bytes(data[:LPM_LENGTH_BYTES], "little")
            return netaddress.format_prefix(length, data[LPM_LENGTH_BYTES:])
        return int.from_bytes(data, "little") if self.type in INDEXED | EVENTS else self._format(self.key_type, data)

    def format_value(self, data: bytes) -> Any:
        """A value (of one CPU) as a Python value, in the same way; a record as hex bytes; of a section of variables a
        dict by their names, of a PROG_ARRAY a program's name, of a map of maps a map's, and of a DEVMAP a port's where
        `data` is one."""
        names = self.type is PROG_ARRAY or self.type in OF_MAPS
        if names or (self.type in DEVMAPS and len(data) != self.value_size):
            return data.decode()
        if self.variables is not None:
            return self.variables.read(data)
        return data.hex(" ") if self.type in EVENTS else self._format(self.value_type, data)

    def parse_key(self, value: Any) -> bytes:
        """`key_size` bytes from what Btf.parse takes, or a prefix; without BTF from a number or hex bytes. Raises
        BpfnicError."""
        if self._has_prefixes and isinstance(value, str) and ("." in value or ":" in value):
            prefix = netaddress.parse_prefix(value, self.key_size - LPM_LENGTH_BYTES)
            if prefix is None:
                example = "10.0.0.0/8" if self.key_size == LPM_LENGTH_BYTES + 4 else "2001:db8::/32"
                raise BpfnicError(f"map {self.name!r}: key: {value!r} is no prefix such as {example}")
            return prefix[0].to_bytes(LPM_LENGTH_BYTES, "little") + prefix[1]
        if self.type in INDEXED and isinstance(value, str) and value.isdecimal():
            value = int(value)  # whether its type is known or not
        return self._parse(self.key_type, value, self.key_size, f"map {self.name!r}: key")

    @property
    def _has_prefixes(self) -> bool:
        """Keys are a length and one member of the size of an IPv4 or IPv6 address."""
        if self.type is not MapType.LPM_TRIE or self.key_size - LPM_LENGTH_BYTES not in (4, 16):
            return False
        return not self.btf or self.key_type == VOID or len(self.btf.resolve(self.key_type).parts) == 2

    def parse_value(self, value: Any) -> bytes:
        """`value_size` bytes, in the same way, or for a DEVMAP a port's name; what a dict of variables doesn't name is
        as in the object."""
        if self.variables is not None and isinstance(value, Mapping):
            return self.variables.written(value)
        if self.type in DEVMAPS and isinstance(value, str) and value.startswith("port"):
            return value.encode()
        if self.type is PROG_ARRAY:
            if not isinstance(value, str):
                raise BpfnicError(f"map {self.name!r}: value: {value!r} is no program's name")
            return value.encode()
        return self._parse(self.value_type, value, self.value_size, f"map {self.name!r}: value")

    def _format(self, type: int, data: bytes) -> Any:
        if not self.btf or type == VOID:
            return data.hex(" ")
        try:
            return self.btf.format(type, data)
        except BpfnicError as error:
            raise BpfnicError(f"map {self.name!r}: {error}") from None

    def _parse(self, type: int, value: Any, size: int, name: str) -> bytes:
        if isinstance(value, bytes | bytearray):
            data = bytes(value)
        elif self.btf and type != VOID:
            data = self.btf.parse(type, value, name)
        else:
            data = _parse_untyped(value, size, name)
        if len(data) != size:
            raise BpfnicError(f"{name}: {len(data)} bytes, not {size}")
        return data


def _parse_untyped(value: Any, size: int, name: str) -> bytes:
    """Bytes as hex text or a list, or a number, little-endian."""
    try:
        if isinstance(value, str) and not value.lower().startswith("0x"):
            return bytes.fromhex(value)
        if isinstance(value, list):
            return bytes(value)
        number = int(value, 0) if isinstance(value, str) else int(value)
        return (number & (1 << 8 * size) - 1 if -1 << 8 * size - 1 <= number < 0 else number).to_bytes(size, "little")
    except (ValueError, TypeError, OverflowError):
        raise BpfnicError(f"{name}: {value!r} is no number or hex bytes of {size} bytes") from None


class Globals(MutableMapping[str, Any]):
    """The variables of one section by name: reading gives what Btf.format gives, writing takes what Btf.parse takes.

    `content` is the section's bytes as they will be loaded."""

    def __init__(self, section: str, content: bytearray, btf: Btf | None, variables: dict[str, tuple[int, int, int]]):
        self.section, self.content, self._btf, self._variables = section, content, btf, variables

    def at(self, content: bytes) -> "Globals":
        """The same variables in other bytes of the section."""
        return Globals(self.section, bytearray(content), self._btf, self._variables)

    def _find(self, name: str) -> tuple[int, int, int]:
        try:
            return self._variables[name]
        except KeyError:
            raise BpfnicError(f"{self.section} has no variable {name!r}; it has {', '.join(self) or 'none'}") from None

    def offset(self, name: str) -> int:
        """The first byte of a variable."""
        return self._find(name)[1]

    def read(self, content: bytes) -> dict[str, Any]:
        """Every variable, from a copy of the section that may come from a device."""
        copy = Globals(self.section, bytearray(content), self._btf, self._variables)
        return {name: copy[name] for name in copy}

    def written(self, values: Mapping[str, Any]) -> bytes:
        """The section with some variables set, for writing it to a device."""
        copy = Globals(self.section, bytearray(self.content), self._btf, self._variables)
        copy.update(values)
        return bytes(copy.content)

    def __getitem__(self, name: str) -> Any:
        type, offset, size = self._find(name)
        data = bytes(self.content[offset : offset + size])
        if not self._btf or type == VOID:
            return int.from_bytes(data, "little")
        try:
            return self._btf.format(type, data)
        except BpfnicError as error:
            raise BpfnicError(f"map {self.section!r}, variable {name!r}: {error}") from None

    def __setitem__(self, name: str, value: Any) -> None:
        type, offset, size = self._find(name)
        if self._btf and type != VOID:
            data = self._btf.parse(type, value, name)
        else:
            data = _parse_untyped(value, size, name)
        self.content[offset : offset + len(data)] = data

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __delitem__(self, name: str) -> None:
        raise BpfnicError(f"{self.section}: variable {name!r} can't be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def set_variable(maps: Mapping[str, MapDefinition], name: str, value: Any) -> None:
    """Set the global variable of that name, in whichever section it is. Raises BpfnicError if there is none."""
    sections = [definition.variables for definition in maps.values() if definition.variables is not None]
    for variables in sections:
        if name in variables:
            variables[name] = value
            return
    known = ", ".join(known for variables in sections for known in variables)
    raise BpfnicError(f"no global variable {name!r}; the object has {known or 'none'}")
