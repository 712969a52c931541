"""`extern … __kconfig`: numbers and texts of the kernel's configuration, which whoever loads a program gives.

They are the variables of a section `.kconfig`, constants for the program. A NIC has no kernel that was configured: it
knows what it is itself (`KNOWN`), and everything else is to be given, unless it is weak, and then it is 0. Values are
written as in a kernel's .config, and fit types as libbpf has it (set_kcfg_value_tri, _num, _str)."""

import gzip
import re
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from bpfnic.host.btf import Btf, Kind
from bpfnic.host.elf import SHN_UNDEF, Elf
from bpfnic.host.maps import Globals, MapDefinition
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import JIFFIES_PER_SECOND
from bpfnic.spec.maps import MapFlag, MapType

SECTION = ".kconfig"
KNOWN = {"LINUX_KERNEL_VERSION": 6 << 16 | 18 << 8, "CONFIG_HZ": JIFFIES_PER_SECOND}
"""The reference is Linux 6.18."""
_WORDS = {"n": 0, "y": 1, "m": 2}


class Kconfig(Globals):
    """The variables of `.kconfig`; setting one also takes "y", "m", "n" and text in quotes. `missing`: names of those
    that have no value yet and must get one."""

    def __init__(self, content: bytearray, btf: Btf, variables: dict[str, tuple[int, int, int]], missing: set[str]):
        super().__init__(SECTION, content, btf, variables)
        self.missing = missing

    def __setitem__(self, name: str, value: Any) -> None:
        type, _, _ = self._find(name)
        if self._btf and isinstance(value, str):
            value = _value(self._btf, type, name, value)
        super().__setitem__(name, value)
        self.missing.discard(name)

    @property
    def definition(self) -> MapDefinition:
        """The map that they are in."""
        return MapDefinition(SECTION, MapType.ARRAY, 4, len(self.content), 1, MapFlag.RDONLY_PROG, self._btf,
                             variables=self)  # fmt: skip


def _value(btf: Btf, type: int, name: str, value: str) -> Any:
    """What Globals takes for a value as .config has it. Raises BpfnicError where the type doesn't take it."""
    wanted = btf.resolve(type)
    tristate = wanted.kind in (Kind.ENUM, Kind.ENUM64) and wanted.name == "libbpf_tristate"
    character = wanted.kind is Kind.INT and wanted.size == 1 and not wanted.boolean
    if value in _WORDS:
        if tristate or (wanted.boolean and value != "m"):
            return _WORDS[value]
        if character:
            return ord(value)
        raise BpfnicError(f"{name}: {value} is no {btf.describe(type)}")
    if value[:1] == '"' == value[-1:] and len(value) > 1:
        if wanted.kind is not Kind.ARRAY:
            raise BpfnicError(f"{name}: {value} is no {btf.describe(type)}")
        text = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        return text.encode()[: max(wanted.count - 1, 0)]
    if tristate or wanted.boolean:
        raise BpfnicError(f"{name}: {value!r} is none of y, n{', m' if tristate else ''}")
    return value


def read(elf: Elf, btf: Btf | None) -> Kconfig | None:
    """An object's, None where it has none. Raises BpfnicError for one of no size."""
    section = btf.find(Kind.DATASEC, SECTION) if btf else None
    if btf is None or section is None:
        return None
    symbols = {symbol.name: symbol for symbol in elf.symbols if symbol.section == SHN_UNDEF}
    places: dict[str, tuple[int, int, int]] = {}
    end = 0
    for part in section.parts:
        variable = btf[part.type]
        size = btf.size(variable.target)
        if not 0 < size <= 4096:
            raise elf.refuse(f"section {SECTION!r}: {variable.name!r} has {size} bytes")
        align = min(8, size & -size)
        start = -(-end // align) * align
        places[variable.name] = variable.target, start, size
        end = start + size
    missing = {name for name in places if not (name in symbols and symbols[name].weak)}
    kconfig = Kconfig(bytearray(end), btf, places, missing)
    for name in places.keys() & KNOWN.keys():
        kconfig[name] = KNOWN[name]
    return kconfig


def give(variables: MutableMapping[str, Any], values: Sequence[str]) -> None:
    """Sets variables to what `--kconfig` says, in order: NAME=VALUE, or a file, which may say more. Raises
    BpfnicError."""
    for value in values:
        name, equals, content = value.partition("=")
        if equals and re.fullmatch(r"\w+", name):
            if not content:
                raise BpfnicError(f"--kconfig {value}: no value")
            variables[name] = content
            continue
        for name, content in _file(Path(value)).items():
            if name in variables:
                variables[name] = content


def _file(path: Path) -> dict[str, str]:
    """The values of a kernel's .config (also compressed, as /proc/config.gz). Raises BpfnicError naming the file."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except OSError as error:
        raise BpfnicError(f"--kconfig {path}: {error.strerror or error}") from None
    except (UnicodeDecodeError, EOFError, ValueError):
        raise BpfnicError(f"--kconfig {path}: no configuration of a kernel") from None
    return dict(re.findall(r"^(CONFIG_\w+)=(.+)$", text, re.MULTILINE))
