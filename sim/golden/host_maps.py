"""The host's side of maps: descriptors, and commands on maps with keys of their own (registers MAP_*)."""

from dataclasses import fields
from errno import E2BIG, EINVAL, ENOENT

from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.maps import Descriptor, Maps
from bpfnic.sim.golden.registers import Registers
from bpfnic.spec.registers import BY_NAME, MapCommand


class HostMaps:
    """Executes what is written to MAP_COMMIT and MAP_COMMAND."""

    def __init__(self, maps: Maps, registers: Registers):
        self.maps = maps
        self.registers = registers
        self.reserved: dict[int, int] = {}  # place by map

    def describe(self, index: int) -> None:
        """MAP_COMMIT: the fields become descriptor `index`."""
        if index < len(self.maps.descriptors):
            values = {field.name: self.registers["MAP_" + field.name.upper()] for field in fields(Descriptor)}
            self.maps.describe(index, Descriptor(**values))
            self.reserved.pop(index, None)

    def command(self, word: int) -> None:
        """MAP_COMMAND: MAP_STATUS says how it went."""
        index, operation, flags = word & 0xFF, word >> 8 & 0xF, word >> 16 & 3
        entries = self.maps.entries[index] if index < len(self.maps.entries) else None
        status = self._execute(index, entries, operation, flags) if isinstance(entries, Hash) else EINVAL
        self.registers["MAP_STATUS"] = status

    def _execute(self, index: int, entries: Hash, operation: int, flags: int) -> int:
        key = self._key(entries.key_size)
        match operation:
            case MapCommand.LOOKUP:
                if (place := entries.find(key)) is None:
                    return ENOENT
                self.registers["MAP_VALUE"] = self.maps.value_offset(index, place)
                return 0
            case MapCommand.RESERVE:
                if index not in self.reserved:
                    if not entries.free:
                        return E2BIG
                    self.reserved[index] = entries.free.popleft()
                self.registers["MAP_VALUE"] = self.maps.value_offset(index, self.reserved[index])
                return 0
            case MapCommand.INSERT:
                if index not in self.reserved:
                    return EINVAL
                if error := entries.refuses(key, flags):
                    return error
                return entries.insert(key, self.reserved.pop(index), flags)
            case MapCommand.DELETE:
                return entries.delete(key)
            case MapCommand.FIRST | MapCommand.NEXT:
                found = entries.next(key if operation == MapCommand.NEXT else None)
                if found is None:
                    return ENOENT
                self._set_key(found)
                return 0
        return EINVAL

    def _key(self, size: int) -> bytes:
        words = [self.registers.get("MAP_KEY", index) for index in range(BY_NAME["MAP_KEY"].count)]
        return b"".join(word.to_bytes(4, "little") for word in words)[:size]

    def _set_key(self, key: bytes) -> None:
        for index in range(BY_NAME["MAP_KEY"].count):
            self.registers.set("MAP_KEY", index, int.from_bytes(key[4 * index : 4 * index + 4], "little"))
