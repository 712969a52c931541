"""Programs and maps of the kernel, as a device has them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from errno import EINVAL, EOPNOTSUPP
from typing import TYPE_CHECKING

from bpfnic.host.device import DeviceMap, LoadedProgram
from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.host.programarray import ProgramArray
from bpfnic.host.redirectmap import RedirectMap
from bpfnic.spec.maps import DEVMAPS, MAP_BYTES, OF_MAPS, PER_CPU, PROGRAM_BYTES, REDIRECT_MAPS, MapType

if TYPE_CHECKING:
    from bpfnic.host.object import MapDefinition, Program

_ENOTSUPP = 524  # linux/errno.h: not meant for users, and yet the answer of maps without an operation
_AF_XDP = 44


class LinuxProgram(LoadedProgram):
    """A program that the kernel's verifier accepted."""

    verified = True

    def __init__(self, program: Program, fd: int, maps: list[LinuxMap]):
        self.program = program
        self.fd = fd
        self.maps = maps


class LinuxMap(DeviceMap):
    """A map of the kernel, of whose per-CPU values the device's one CPU has the only one that counts."""

    def __init__(self, definition: MapDefinition, fd: int, cpu: int):
        self.definition = definition
        self.copies = 1
        self.fd = fd
        self.frozen = False
        self._value_bytes = definition.value_size
        self._before = self._after = b""
        if definition.type in PER_CPU:
            padded = -(-definition.value_size // 8) * 8
            self._value_bytes = padded * bpf.possible_cpus()
            self._before = bytes(padded * cpu)
            self._after = bytes(self._value_bytes - len(self._before) - definition.value_size)

    def lookup(self, key: bytes) -> list[bytes]:
        value = bpf.map_lookup(self.fd, key, self._value_bytes)
        return [value[len(self._before) :][: self.definition.value_size]]

    def freeze(self) -> None:
        bpf.map_freeze(self.fd)
        self.frozen = True

    def pop(self, key: bytes) -> list[bytes]:
        try:
            value = bpf.map_pop(self.fd, key, self._value_bytes)
        except OSError as error:
            if error.errno != _ENOTSUPP:
                raise
            raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP)) from None
        return [value[len(self._before) :][: self.definition.value_size]]

    def update(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        (value,) = values
        bpf.map_update(self.fd, key, self._before + value + self._after, flags)

    def delete(self, key: bytes) -> None:
        bpf.map_delete(self.fd, key)

    def next_key(self, key: bytes | None) -> bytes:
        return bpf.map_next_key(self.fd, key, self.definition.key_size)

    def close(self) -> None:
        """Give it back."""
        os.close(self.fd)


class LinuxRedirectMap(RedirectMap, LinuxMap):
    """A redirect map of the kernel. What names a link is asked for and set inside the namespace that has it, and set
    once more in a namespace that takes its place; an XSKMAP's entries are sockets made for them.

    `inside`: gives the namespace."""

    inside: Callable[[], Namespace]

    def __init__(self, definition: MapDefinition, fd: int, cpu: int):
        super().__init__(definition, fd, cpu)
        self._ports: dict[bytes, int] = {}  # of a DEVMAP, by key
        self._sockets: dict[bytes, socket.socket] = {}  # of an XSKMAP, by key

    def lookup(self, key: bytes) -> list[bytes]:
        self.inside()
        return super().lookup(key)

    def update(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        value, kind = self.kernels(values), self.definition.type
        index, ifindex = (int.from_bytes(part[:4], "little") for part in (key, value))
        if kind is MapType.XSKMAP:
            self._open_socket(key, index, value, flags)
            return
        self.inside().call(bpf.map_update, self.fd, key, value, flags)
        if kind not in DEVMAPS:
            return
        self._ports.pop(key, None)
        if ifindex in self.ifindexes:
            self._ports[key] = self.ifindexes.index(ifindex)
        elif ifindex:  # a link of the namespace that is no port
            bpf.map_delete(self.fd, key)
            raise OSError(EINVAL, f"{self.definition.name}: no port has ifindex {ifindex}")

    def _open_socket(self, key: bytes, index: int, value: bytes, flags: int) -> None:
        if index < self.definition.max_entries:
            self.target(index, value, flags, key in self._sockets)
        made = self.inside().call(socket.socket, _AF_XDP, socket.SOCK_RAW, 0)
        try:
            bpf.map_update(self.fd, key, made.fileno().to_bytes(4, "little"), flags)
        except OSError:
            made.close()
            raise
        if key in self._sockets:
            self._sockets[key].close()
        self._sockets[key] = made

    def delete(self, key: bytes) -> None:
        super().delete(key)
        self._ports.pop(key, None)
        if made := self._sockets.pop(key, None):
            made.close()

    def dump(self) -> dict[bytes, list[bytes]]:
        if self.definition.type is MapType.XSKMAP:  # the kernel lets nobody look
            return {key: [key] for key in sorted(self._sockets, key=lambda key: int.from_bytes(key, "little"))}
        found = {}
        for key in self.keys():
            try:
                (value,) = self.lookup(key)
            except FileNotFoundError:
                continue
            found[key] = [self.shown(self._ports.get(key, 0), value)]
        return found

    def restore(self) -> None:
        """Set again what the links of an earlier namespace took along."""
        for key, port in self._ports.items():
            self.inside().call(bpf.map_update, self.fd, key, self.of_port(port))

    def close(self) -> None:
        for made in self._sockets.values():
            made.close()
        super().close()


class LinuxProgramArray(ProgramArray, LinuxMap):
    """A PROG_ARRAY of the kernel, which has file descriptors put in."""

    def _write(self, index: int, loaded: LoadedProgram | None) -> None:
        key = index.to_bytes(self.definition.key_size, "little")
        if loaded is None:
            bpf.map_delete(self.fd, key)
            return
        assert isinstance(loaded, LinuxProgram)
        bpf.map_update(self.fd, key, loaded.fd.to_bytes(PROGRAM_BYTES, "little"))


class LinuxMapOfMaps(MapOfMaps, LinuxMap):
    """An ARRAY_OF_MAPS or HASH_OF_MAPS of the kernel, which has file descriptors put in."""

    def _put(self, key: bytes, inner: DeviceMap, flags: int) -> None:
        assert isinstance(inner, LinuxMap)
        bpf.map_update(self.fd, key, inner.fd.to_bytes(MAP_BYTES, "little"), flags)

    def _remove(self, key: bytes) -> None:
        bpf.map_delete(self.fd, key)


KINDS: dict[MapType, type[LinuxMap]] = {
    MapType.PROG_ARRAY: LinuxProgramArray,
    **dict.fromkeys(OF_MAPS, LinuxMapOfMaps),
    **dict.fromkeys(REDIRECT_MAPS, LinuxRedirectMap),
}  # others: LinuxMap
