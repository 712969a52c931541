"""What the definition of a map on a NIC must be like."""

from typing import TYPE_CHECKING

from bpfnic.host import valuetypes
from bpfnic.host.eventmaps import check as check_event_map
from bpfnic.host.mapsofmaps import check_inner
from bpfnic.host.redirectmap import check as check_redirect_map
from bpfnic.host.registermaps import ARRAYS
from bpfnic.spec.addresses import INDEX_BYTES, MAX_KEY_BYTES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import (
    EVENTS,
    KEYED,
    LPM_LENGTH_BYTES,
    MAP_BYTES,
    OF_MAPS,
    PROGRAM_BYTES,
    QUEUES,
    REDIRECT_MAPS,
    MapType,
    flags_refused,
)

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition

VALUE_BYTES = 4096
"""Of the longest value that a descriptor holds."""


def check(definition: "MapDefinition", types: frozenset[MapType], device: str) -> None:
    """Raises BpfnicError for a map that a device of that name, which has these types, can't have whatever is free."""
    name = f"map {definition.name} ({definition.type.name})"
    if definition.type not in types & (ARRAYS | KEYED | QUEUES | EVENTS):
        has = ", ".join(sorted(kind.name for kind in types))
        raise BpfnicError(f"{name}: {device} does not have this map type; it has {has}")
    if why := flags_refused(definition.type, definition.flags):
        raise BpfnicError(f"{name}: {why}")
    valuetypes.check(definition)
    if definition.type in EVENTS:
        check_event_map(definition)
        return
    if definition.type in ARRAYS and definition.key_size != INDEX_BYTES:
        raise BpfnicError(f"{name}: an array's key has {INDEX_BYTES} bytes, not {definition.key_size}")
    if definition.type in OF_MAPS and definition.value_size != MAP_BYTES:
        raise BpfnicError(f"{name}: a map takes {MAP_BYTES} bytes, not {definition.value_size}")
    check_inner(definition)
    if definition.type is MapType.PROG_ARRAY and definition.value_size != PROGRAM_BYTES:
        raise BpfnicError(f"{name}: a program takes {PROGRAM_BYTES} bytes, not {definition.value_size}")
    if definition.type in REDIRECT_MAPS:
        check_redirect_map(definition)
    shortest = LPM_LENGTH_BYTES + 1 if definition.type is MapType.LPM_TRIE else 1
    if definition.type in QUEUES and definition.key_size:
        raise BpfnicError(f"{name}: such a map has no keys, not one of {definition.key_size} bytes")
    if definition.type not in QUEUES and not shortest <= definition.key_size <= MAX_KEY_BYTES:
        raise BpfnicError(f"{name}: a key has {shortest} to {MAX_KEY_BYTES} bytes, not {definition.key_size}")
    if not definition.max_entries:
        raise BpfnicError(f"{name}: max_entries is 0")
    if not 1 <= definition.value_size <= VALUE_BYTES and definition.variables is None:
        raise BpfnicError(f"{name}: a value has 1 to {VALUE_BYTES} bytes, not {definition.value_size}")
