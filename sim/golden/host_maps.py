"""The host's side of maps: descriptors, and commands on maps with keys of their own (registers MAP_*)."""

from dataclasses import fields
from errno import E2BIG, EINVAL, ENOENT

from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.maps import Descriptor, Maps
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.golden.registers import Registers
from bpfnic.spec.registers import BY_NAME, MapCommand


class HostMaps:
    """Executes what is written to MAP_COMMIT and MAP_COMMAND."""

    def __init__(self, maps: Maps, registers: Registers):
        self.maps = maps
        self.registers = registers
        self.reserved: dict[int, int] = {}  # place by queue
        self.found: dict[int, int] = {}  # place of a queue's value that is being read

    def describe(self, index: int) -> None:
        """MAP_COMMIT: the fields become descriptor `index`."""
        if index < len(self.maps.descriptors):
            values = {field.name: self.registers["MAP_" + field.name.upper()] for field in fields(Descriptor)}
            self.maps.describe(index, Descriptor(**values))
            self.reserved.pop(index, None)
            self.found.pop(index, None)

    def command(self, word: int) -> None:
        """MAP_COMMAND: MAP_STATUS says how it went."""
        index, operation, flags = word & 0xFF, word >> 8 & 0xF, word >> 16 & 3
        status = EINVAL
        if index < len(self.maps.entries):
            entries, queue = self.maps.entries[index], self.maps.queues[index]
            if queue is not None:
                if index in self.found:
                    queue.release(self.found.pop(index))
                status = self._execute_on_queue(index, queue, operation, flags)
            elif isinstance(entries, Hash):
                status = self._execute(index, entries, operation, flags)
        self.registers["MAP_STATUS"] = status

    def _execute_on_queue(self, index: int, queue: Queue, operation: int, flags: int) -> int:
        match operation:
            case MapCommand.LOOKUP | MapCommand.POP:
                self._give_back(index, queue)
                return self._show(index, queue.peek() if operation == MapCommand.LOOKUP else queue.pop())
            case MapCommand.RESERVE:
                return self._reserve(index, queue)
            case MapCommand.INSERT:
                if index not in self.reserved:
                    return EINVAL
                return queue.refuses(flags) or queue.insert(self.reserved.pop(index), flags)
        return EINVAL

    def _reserve(self, index: int, queue: Queue) -> int:
        if index not in self.reserved:
            if not queue.free:
                return E2BIG
            self.reserved[index] = queue.free.popleft()
        self.registers["MAP_VALUE"] = self.maps.value_offset(index, self.reserved[index])
        return 0

    def _give_back(self, index: int, queue: Queue) -> None:
        """The host has one place at most."""
        if index in self.reserved:
            queue.free.append(self.reserved.pop(index))

    def _show(self, index: int, place: int | None) -> int:
        """A value that the host may read until its next command for the map."""
        if place is None:
            return ENOENT
        self.found[index] = place
        self.registers["MAP_VALUE"] = self.maps.value_offset(index, place)
        return 0

    def _execute(self, index: int, entries: Hash, operation: int, flags: int) -> int:
        key, host = self._key(entries.key_size), self.maps.cpus
        match operation:
            case MapCommand.LOOKUP:
                if (place := entries.find(key)) is None:
                    return ENOENT
                self.registers["MAP_VALUE"] = self.maps.value_offset(index, place)
                return 0
            case MapCommand.RESERVE:
                self.registers["MAP_VALUE"] = self.maps.value_offset(index, entries.reserve(key, host))
                return 0
            case MapCommand.POP:
                if (place := entries.pop(key, host)) is None:
                    return ENOENT
                self.registers["MAP_VALUE"] = self.maps.value_offset(index, place)
                return 0
            case MapCommand.INSERT:
                return entries.insert(key, host, flags)
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
