"""The tables and rings of world.py on a NIC: made, made anew before a case that names them, and read behind it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bpfnic.host.btf import Btf
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.kinds import Kind, Part, Type
from bpfnic.host.eventmaps import EventMap
from bpfnic.host.keyedmaps import KeyedMap
from bpfnic.host.maps import MapDefinition
from bpfnic.host.registermaps import table_bytes
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import world
from bpfnic.sim.tablecheck import of_map
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.maps import LOCK_BYTES, QUEUES, MapType

_MARGIN = 64  # bytes at the end of map memory that programs go to on purpose


def _with_lock(table: world.Table) -> tuple[Btf, int]:
    """The type of its values, as an object would say."""
    word = Type(1, Kind.INT, "unsigned int", size=LOCK_BYTES, detail=8 * LOCK_BYTES)
    lock = Type(2, Kind.STRUCT, "bpf_spin_lock", size=LOCK_BYTES, parts=(Part("val", word.number),))
    value = Type(3, Kind.STRUCT, "value", size=table.value, parts=(Part("lock", lock.number, offset=8 * table.lock),))
    return Btf(encode((word, lock, value))), value.number


@dataclass(frozen=True)
class _Place:
    definition: MapDefinition
    base: int


class Tables:
    """On one NIC, as many as fit, of the types of `map_types`; every NIC of a size has them at the same places."""

    def __init__(self, nic: BareNic, map_types: Collection[MapType]):
        self._device = nic.device
        self._places: dict[int, _Place] = {}
        self._made: dict[int, KeyedMap | EventMap] = {}
        has, base = nic.device.capabilities, world.TABLES_AT
        for index, each in enumerate(world.TABLES, len(world.MAPS)):
            name = f"{each.type.name.lower()}{index}"
            definition = MapDefinition(name, each.type, each.key, each.value, each.entries, each.flags)
            if each.lock:
                definition.btf, definition.value_type = _with_lock(each)
            end = base + nic.device.map_bytes(definition)
            if end + _MARGIN > has.map_bytes:
                continue
            if each.type in map_types:
                self._places[index] = _Place(definition, base)
                self.renew(index)
            base = end

    def renew(self, index: int) -> None:
        """Make one, with what world.py puts into it."""
        place = self._places[index]
        made = self._device.map_at(place.definition, index, place.base)
        assert isinstance(made, KeyedMap | EventMap)
        for key, word in world.content(world.TABLES[index - len(world.MAPS)]).items():
            assert isinstance(made, KeyedMap)
            made.store(key, [word])
        self._made[index] = made

    def named(self, instructions: Iterable[Instruction]) -> list[int]:
        """Those whose handle is a constant in a program."""
        handles = {world.handle(index): index for index in self._places}
        constants = {one.imm64 for one in instructions if one.slots == 2}
        return [handles[constant] for constant in sorted(constants & handles.keys())]

    def private(self) -> tuple[range, ...]:
        """Bytes of map memory that only the map engine reads and writes."""
        return tuple(
            range(end - table_bytes(place.definition, self._device.capabilities.cpus), end)
            for place in self._places.values()
            for end in [place.base + self._device.map_bytes(place.definition)]
        )

    def check(self, index: int) -> str:
        """What is wrong with one, of a NIC whose tables lie in map memory; a ring is none."""
        made = self._made[index]
        try:
            if isinstance(made, KeyedMap):
                of_map(made, self._device.capabilities.cpus)
        except AssertionError as why:
            return str(why)
        return ""

    def take(self, index: int) -> list[tuple[bytes, list[bytes]]]:
        """Keys and values, in no order; of a queue the values in theirs, and of a ring the records that came: they are
        gone then."""
        made = self._made[index]
        if isinstance(made, EventMap):
            records = [(bytes([record.cpu]), [bytes(record)]) for record in made.records]
            made.records.clear()
            return records
        if made.definition.type not in QUEUES:
            return sorted(made.walk().items())
        taken = []
        while made.holds_value():
            taken.append((b"", made.pop(b"")))
        return taken
