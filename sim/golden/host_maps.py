"""The host's side of maps: descriptors, and commands on maps with keys of their own (registers MAP_*)."""

from dataclasses import fields
from errno import EINVAL, ENOENT

from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.maps import Descriptor, Maps
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.golden.registers import Registers
from bpfnic.spec.registers import BY_NAME, STATUS_DONE_BIT, MapCommand


class HostMaps:
    """Executes what is written to MAP_COMMIT and MAP_COMMAND.

    astray: a command failed, and MAP_ADDRESS was not set since: MAP_DATA does nothing."""

    def __init__(self, maps: Maps, registers: Registers):
        self.maps = maps
        self.registers = registers
        self.astray = False
        self.error = self.done = 0  # of the commands since MAP_STATUS was read

    def describe(self, index: int) -> None:
        """MAP_COMMIT: the fields become descriptor `index`."""
        if index < len(self.maps.descriptors):
            values = {field.name: self.registers["MAP_" + field.name.upper()] for field in fields(Descriptor)}
            self.maps.describe(index, Descriptor(**values))

    def command(self, word: int) -> None:
        """MAP_COMMAND, which does nothing behind one that failed."""
        if self.error:
            return
        index, operation, flags = word & 0xFF, word >> 8 & 0xF, word >> 16 & 3
        status = EINVAL
        if index < len(self.maps.entries):
            entries, queue = self.maps.entries[index], self.maps.queues[index]
            if queue is not None:
                status = self._execute_on_queue(index, queue, operation, flags)
            elif isinstance(entries, Hash):
                status = self._execute(index, entries, operation, flags)
        self.error = status
        if status:
            self.astray = True
        else:
            self.done += 1

    def read_status(self) -> int:
        """MAP_STATUS, which begins anew."""
        word = self.error | self.done << STATUS_DONE_BIT
        self.error = self.done = 0
        return word & 0xFFFFFFFF

    def aim(self) -> None:
        """MAP_ADDRESS has been written."""
        self.astray = False

    def _point(self, index: int, place: int) -> None:
        """MAP_ADDRESS is at the value of a place."""
        self.registers["MAP_ADDRESS"] = self.maps.value_offset(index, place)
        self.astray = False

    def _execute_on_queue(self, index: int, queue: Queue, operation: int, flags: int) -> int:
        host = self.maps.cpus
        match operation:
            case MapCommand.LOOKUP | MapCommand.POP:
                queue.release(host)
                place = queue.peek(host) if operation == MapCommand.LOOKUP else queue.pop(host)
                if place is None:
                    return ENOENT
                self._point(index, place)
                return 0
            case MapCommand.RESERVE:
                queue.release(host)
                self._point(index, queue.reserve(host))
                return 0
            case MapCommand.INSERT:
                queue.release(host)
                return queue.insert(host, flags)
        return EINVAL

    def _execute(self, index: int, entries: Hash, operation: int, flags: int) -> int:
        key, host = self._key(entries.key_size), self.maps.cpus
        match operation:
            case MapCommand.LOOKUP:
                return self._find(index, entries.find(key))
            case MapCommand.RESERVE:
                return self._find(index, entries.reserve(key, host))
            case MapCommand.POP:
                return self._find(index, entries.pop(key, host))
            case MapCommand.INSERT:
                return entries.insert(key, host, flags)
            case MapCommand.DELETE:
                return entries.delete(key)
            case MapCommand.FIRST | MapCommand.NEXT:
                found = entries.next(key if operation == MapCommand.NEXT else None)
                if found is None:
                    return ENOENT
                self._set_key(found)
                return self._find(index, entries.find(found))
        return EINVAL

    def _find(self, index: int, place: int | None) -> int:
        if place is None:
            return ENOENT
        self._point(index, place)
        return 0

    def _key(self, size: int) -> bytes:
        words = [self.registers.get("MAP_KEY", index) for index in range(BY_NAME["MAP_KEY"].count)]
        return b"".join(word.to_bytes(4, "little") for word in words)[:size]

    def _set_key(self, key: bytes) -> None:
        for index in range(BY_NAME["MAP_KEY"].count):
            self.registers.set("MAP_KEY", index, int.from_bytes(key[4 * index : 4 * index + 4], "little"))
