"""What the running kernel holds, by bpf(2): programs, maps and BTF, found by id, name, tag or pinned file as bpftool
finds them. Raises OSError as the system call does."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bpfnic.host.linux.bpf import call

# enum bpf_cmd
_OBJ_GET, _INFO = 7, 15
_NEXT = {"prog": 11, "map": 12}
_BY_ID = {"prog": 13, "map": 14, "btf": 19}

_INFO_BYTES = {"prog": 256, "map": 128}
# struct bpf_prog_info and bpf_map_info: where their fields lie.
_NAME_AT, _NAME_BYTES = {"prog": 64, "map": 24}, 16
_TAG_AT, _TAG_BYTES = 8, 8
_BTF_ID_AT = {"prog": 128, "map": 64}
_BTF_INFO = struct.Struct("=QIIQII")  # struct bpf_btf_info: its data and how long, id, name and how long, kernel_btf
_NAME_ROOM = 64


@dataclass(frozen=True)
class KernelBtf:
    """Types that the kernel holds: `name` of those of a module or of vmlinux (`of_kernel`)."""

    data: bytes
    name: str
    of_kernel: bool


@dataclass(frozen=True)
class Held:
    """A program or map: the id of its BTF, 0 for none, and of a map's key and value the types there."""

    btf: int
    key: int = 0
    value: int = 0


def find(kind: str, selector: str, value: str) -> list[Held]:
    """The programs (`kind` "prog") or maps ("map") with such an "id", "name", "tag" (programs) or "pinned" file."""
    if selector in ("id", "pinned"):
        with _opened(kind, selector, value) as fd:
            return [_held(kind, _info(fd, _INFO_BYTES[kind]))]
    at, size = (_TAG_AT, _TAG_BYTES) if selector == "tag" else (_NAME_AT[kind], _NAME_BYTES)
    wanted = bytes.fromhex(value) if selector == "tag" else value.encode()
    found = []
    for number in _ids(kind):
        with _opened(kind, "id", str(number)) as fd:
            info = _info(fd, _INFO_BYTES[kind])
        has = info[at : at + size]
        if (has if selector == "tag" else has.split(b"\0")[0]) == wanted:
            found.append(_held(kind, info))
    return found


def btf(number: int) -> KernelBtf:
    """The BTF with that id."""
    with _opened("btf", "id", str(number)) as fd:
        size = _BTF_INFO.unpack_from(_info(fd, _BTF_INFO.size))[1]
        data, name = ctypes.create_string_buffer(size or 1), ctypes.create_string_buffer(_NAME_ROOM)
        asked = _BTF_INFO.pack(ctypes.addressof(data), size, 0, ctypes.addressof(name), _NAME_ROOM, 0)
        *_, of_kernel = _BTF_INFO.unpack_from(_info(fd, _BTF_INFO.size, asked))
    return KernelBtf(data.raw[:size], name.value.decode(errors="replace"), bool(of_kernel))


def _held(kind: str, info: bytes) -> Held:
    if kind == "prog":
        return Held(*struct.unpack_from("=I", info, _BTF_ID_AT[kind]))
    return Held(*struct.unpack_from("=III", info, _BTF_ID_AT[kind]))


class _Attribute(ctypes.Structure):
    """Of the commands for objects: an id or nothing, the id that follows, flags; or a path; or an fd and room."""

    _fields_ = [("first", ctypes.c_uint32), ("second", ctypes.c_uint32), ("third", ctypes.c_uint64)]


class _Path(ctypes.Structure):
    _fields_ = [("path", ctypes.c_uint64), ("fd", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


@contextmanager
def _opened(kind: str, selector: str, value: str) -> Iterator[int]:
    if selector == "pinned":
        path = ctypes.create_string_buffer(value.encode())
        fd = call(_OBJ_GET, _Path(ctypes.addressof(path)))
        link = os.readlink(f"/proc/self/fd/{fd}")
        if link != f"anon_inode:bpf-{kind}":
            os.close(fd)
            raise OSError(errno.EINVAL, f"pinned there is no {kind}")
    else:
        fd = call(_BY_ID[kind], _Attribute(int(value)))
    try:
        yield fd
    finally:
        os.close(fd)


def _ids(kind: str) -> Iterator[int]:
    number = 0
    while True:
        attribute = _Attribute(number)
        try:
            call(_NEXT[kind], attribute)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        number = attribute.second
        yield number


def _info(fd: int, size: int, asked: bytes = b"") -> bytes:
    info = ctypes.create_string_buffer(asked, size)
    call(_INFO, _Attribute(fd, size, ctypes.addressof(info)))
    return info.raw
