"""Map contents from a JSON file (`--map rules.json`): an object of map names, keys and values by their BTF types.

    {"verdicts": {"80": "XDP_DROP", "443": 2},
     "neighbours": [{"key": {"address": "10.0.0.1", "port": 1}, "value": {"mac": "02:00:00:00:00:01"}}],
     "jumps": {"0": "parse_tcp", "1": "parse_udp"},
     "counters": [{"key": 0, "values": [1, 2, 3, 4, 5, 6, 7, 8]}]}

A map is an object where keys are numbers, text or enumerators, otherwise a list. `value` goes to every CPU of a per-CPU
map; `values` has one for each. A PROG_ARRAY's values are programs of the same object, by name.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bpfnic.host.device import DeviceMap, LoadedProgram
from bpfnic.host.jsonfile import read_object
from bpfnic.host.maps import MapDefinition
from bpfnic.host.programarray import ProgramArray
from bpfnic.spec.errors import BpfnicError

Rules = dict[str, list[tuple[bytes, list[bytes], bool]]]
"""For each map name (key, values, whether there is one value for each CPU)."""


def read(path: str | Path, definitions: Mapping[str, MapDefinition]) -> Rules:
    """The rules in a file, as bytes. Raises BpfnicError: no such file, no JSON, an unknown map, a key or value that
    doesn't fit its type."""
    content = read_object(path, "map names")
    rules: Rules = {}
    for name, entries in content.items():
        if name not in definitions:
            has = ", ".join(definitions) or "none"
            raise BpfnicError(f"{path}: the program has no map {name!r}; it has {has}")
        try:
            rules[name] = [_entry(definitions[name], *entry) for entry in _entries(name, entries)]
        except BpfnicError as error:
            raise BpfnicError(f"{path}: {error}") from None
    return rules


def apply(rules: Rules, maps: Mapping[str, DeviceMap], program: Callable[[str], LoadedProgram]) -> None:
    """Write the entries into a device's maps; `program` gives a loaded program by its name. Raises BpfnicError naming
    the map and the key that it refuses."""
    for name, entries in rules.items():
        device_map = maps[name]
        for key, values, each in entries:
            try:
                if isinstance(device_map, ProgramArray):
                    device_map.set_program(key, program(values[0].decode()))
                else:
                    device_map.update(key, values if each else values * device_map.copies)
            except OSError as error:
                shown = device_map.definition.format_key(key)
                raise BpfnicError(f"map {name!r}: key {shown}: {error.strerror}") from None


def _entries(name: str, entries: Any) -> Iterator[tuple[Any, Any, bool]]:
    """(key, value or values, whether it is values), as JSON has them."""
    if isinstance(entries, dict):
        yield from ((key, value, False) for key, value in entries.items())
        return
    if not isinstance(entries, list):
        raise BpfnicError(f"map {name!r}: must be an object, or a list of objects with key and value")
    for number, entry in enumerate(entries):
        members = set(entry) if isinstance(entry, dict) else set()
        if members not in ({"key", "value"}, {"key", "values"}):
            raise BpfnicError(f"map {name!r}: entry {number} must be an object with key and value (or values)")
        yield entry["key"], entry.get("value", entry.get("values")), "values" in members


def _entry(definition: MapDefinition, key: Any, value: Any, each: bool) -> tuple[bytes, list[bytes], bool]:
    if not each:
        return definition.parse_key(key), [definition.parse_value(value)], False
    if not isinstance(value, list):
        raise BpfnicError(f"map {definition.name!r}: values must be a list, one value for each CPU")
    return definition.parse_key(key), [definition.parse_value(one) for one in value], True
