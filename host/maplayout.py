"""Where each map lies in map memory, for routines of the runtime (firmware/runtime/layout.h): a map of the driver's."""

import struct
from dataclasses import replace

from bpfnic.host.maps import MapDefinition
from bpfnic.host.registermaps import RegisterMap, copy_bytes, stride
from bpfnic.spec.addresses import INDEX_BYTES, MAP_VALUES
from bpfnic.spec.maps import PER_CPU

NAME = "map_layouts"


def sized(definition: MapDefinition, maps: int) -> MapDefinition:
    """The definition for a NIC of so many maps."""
    return replace(definition, max_entries=maps)


def write(layouts: RegisterMap, index: int, described: RegisterMap, cpus: int) -> None:
    """Puts the layout of map `index` into the runtime's map of them."""
    definition = described.definition
    value = struct.pack(
        "<6I",
        definition.type,
        definition.max_entries,
        MAP_VALUES + described.base,
        stride(definition),
        copy_bytes(definition, cpus) if definition.type in PER_CPU else 0,
        cpus,
    )
    layouts.update(index.to_bytes(INDEX_BYTES, "little"), [value])
