"""bpf(2) of the running kernel, through ctypes: maps, programs, BPF_PROG_TEST_RUN.

Structures are the parts of `union bpf_attr` that each command reads, in the layout of include/uapi/linux/bpf.h. What
the kernel refuses is raised as OSError with its errno; a refused program as `Refused`, with the verifier's log. File
descriptors are plain integers that the caller closes. Map and program types, flags and section names are spec's and
the loader's business: here they are numbers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from functools import cache

from bpfnic.host.linux.functions import LINE_RECORD_BYTES, RECORD_BYTES

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}  # asm/unistd.h of each

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}

# enum bpf_cmd
_MAP_CREATE = 0
_MAP_LOOKUP = 1
_MAP_UPDATE = 2
_MAP_DELETE = 3
_MAP_NEXT_KEY = 4
_PROG_LOAD = 5
_PROG_TEST_RUN = 10
_BTF_LOAD = 18
_MAP_LOOKUP_AND_DELETE = 21
_MAP_FREEZE = 22

_LOG_BYTES = 16 << 20

_u32, _u64 = ctypes.c_uint32, ctypes.c_uint64


class Refused(OSError):
    """The kernel's verifier refused a program or BTF. `log`: its log, lines of text."""

    def __init__(self, number: int, log: str):
        super().__init__(number, os.strerror(number))
        self.log = log


class _MapCreate(ctypes.Structure):
    _fields_ = [
        ("map_type", _u32),
        ("key_size", _u32),
        ("value_size", _u32),
        ("max_entries", _u32),
        ("map_flags", _u32),
        ("inner_map_fd", _u32),
        ("numa_node", _u32),
        ("map_name", ctypes.c_char * 16),
        ("map_ifindex", _u32),
        ("btf_fd", _u32),
        ("btf_key_type_id", _u32),
        ("btf_value_type_id", _u32),
    ]


class _MapElement(ctypes.Structure):
    _fields_ = [("map_fd", _u32), ("key", _u64), ("value", _u64), ("flags", _u64)]  # value is next_key where one is


class _MapFreeze(ctypes.Structure):
    _fields_ = [("map_fd", _u32)]


class _ProgLoad(ctypes.Structure):
    _fields_ = [
        ("prog_type", _u32),
        ("insn_cnt", _u32),
        ("insns", _u64),
        ("license", _u64),
        ("log_level", _u32),
        ("log_size", _u32),
        ("log_buf", _u64),
        ("kern_version", _u32),
        ("prog_flags", _u32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", _u32),
        ("expected_attach_type", _u32),
        ("prog_btf_fd", _u32),
        ("func_info_rec_size", _u32),
        ("func_info", _u64),
        ("func_info_cnt", _u32),
        ("line_info_rec_size", _u32),
        ("line_info", _u64),
        ("line_info_cnt", _u32),
    ]


class _TestRun(ctypes.Structure):
    _fields_ = [
        ("prog_fd", _u32),
        ("retval", _u32),
        ("data_size_in", _u32),
        ("data_size_out", _u32),
        ("data_in", _u64),
        ("data_out", _u64),
        ("repeat", _u32),
        ("duration", _u32),
        ("ctx_size_in", _u32),
        ("ctx_size_out", _u32),
        ("ctx_in", _u64),
        ("ctx_out", _u64),
        ("flags", _u32),
        ("cpu", _u32),
        ("batch_size", _u32),
    ]


class _BtfLoad(ctypes.Structure):
    _fields_ = [
        ("btf", _u64),
        ("btf_log_buf", _u64),
        ("btf_size", _u32),
        ("btf_log_size", _u32),
        ("btf_log_level", _u32),
    ]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def call(command: int, attribute: ctypes.Structure) -> int:
    """bpf(2): what it returns. Raises OSError."""
    syscall = _SYSCALL.get(platform.machine())
    if platform.system() != "Linux" or syscall is None:
        raise OSError(errno.ENOSYS, f"no bpf(2) known on {platform.system()} {platform.machine()}")
    size = ctypes.c_uint(ctypes.sizeof(attribute))
    while (result := _libc().syscall(ctypes.c_long(syscall), command, ctypes.byref(attribute), size)) < 0:
        number = ctypes.get_errno()
        if number != errno.EAGAIN:  # the verifier gives up when a signal is pending: bpf_check
            raise OSError(number, os.strerror(number))
    return result


# -- perf events --------------------------------------------------------------------------------------------------

_PERF_ATTR_BYTES = 64  # PERF_ATTR_SIZE_VER0: type, size, config, sample_period, sample_type, read_format, …
_TYPE_SOFTWARE, _SW_BPF_OUTPUT, _SAMPLE_RAW, _FORMAT_LOST = 1, 10, 1 << 10, 1 << 4


def perf_event_open(cpu: int) -> int:
    """File descriptor of an event to which programs on a CPU write records (PERF_COUNT_SW_BPF_OUTPUT). Reading it gives
    two 64-bit numbers, the second of which is how many were lost."""
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        raise OSError(errno.ENOSYS, f"no perf_event_open(2) known on {platform.system()} {platform.machine()}")
    fields = _TYPE_SOFTWARE, _PERF_ATTR_BYTES, _SW_BPF_OUTPUT, 1, _SAMPLE_RAW, _FORMAT_LOST
    attribute = ctypes.create_string_buffer(struct.pack("=IIQQQQ24x", *fields), _PERF_ATTR_BYTES)
    everybody, no_group, no_flags = -1, -1, 0
    fd = _libc().syscall(ctypes.c_long(number), attribute, everybody, cpu, no_group, ctypes.c_ulong(no_flags))
    if fd < 0:
        found = ctypes.get_errno()
        raise OSError(found, os.strerror(found))
    return int(fd)


# -- maps ---------------------------------------------------------------------------------------------------------


def map_create(
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    name: str = "",
    inner_map_fd: int = 0,
    btf_fd: int = 0,
    btf_key: int = 0,
    btf_value: int = 0,
) -> int:
    """A new map's file descriptor; sizes in bytes. What of `name` the kernel would refuse is left out of it."""
    attribute = _MapCreate(map_type, key_size, value_size, max_entries, flags, inner_map_fd)
    attribute.map_name = _object_name(name)
    attribute.btf_fd, attribute.btf_key_type_id, attribute.btf_value_type_id = btf_fd, btf_key, btf_value
    return call(_MAP_CREATE, attribute)


def _object_name(name: str) -> bytes:
    """At most 15 letters, digits, `_` and `.`: what bpf_obj_name_cpy takes."""
    return "".join(c for c in name if c.isascii() and (c.isalnum() or c in "_.")).encode()[:15]


def map_lookup(fd: int, key: bytes, value_bytes: int, flags: int = 0) -> bytes:
    """The value at a key (b"" of a map without keys), of `value_bytes` bytes: value_size, or for a per-CPU map
    value_size rounded up to 8 for each possible CPU. ENOENT where there is none."""
    value = ctypes.create_string_buffer(value_bytes)
    call(_MAP_LOOKUP, _MapElement(fd, _address(key or None), ctypes.addressof(value), flags))
    return value.raw


def map_pop(fd: int, key: bytes, value_bytes: int) -> bytes:
    """As map_lookup, and the entry is gone; the next value of a QUEUE or STACK, whose key is b"". ENOENT where there is
    none; ENOTSUPP (524) from other types of maps."""
    value = ctypes.create_string_buffer(value_bytes)
    call(_MAP_LOOKUP_AND_DELETE, _MapElement(fd, _address(key or None), ctypes.addressof(value)))
    return value.raw


def map_update(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Writes a value; flags as BPF_ANY 0, BPF_NOEXIST 1, BPF_EXIST 2."""
    call(_MAP_UPDATE, _MapElement(fd, _address(key or None), _address(value), flags))


def map_delete(fd: int, key: bytes) -> None:
    """Deletes a key; ENOENT where there is none, EINVAL from an array."""
    call(_MAP_DELETE, _MapElement(fd, _address(key or None)))


def map_next_key(fd: int, key: bytes | None, key_bytes: int) -> bytes:
    """The key after `key` (the first one for None, or for a key that isn't there); ENOENT after the last."""
    following = ctypes.create_string_buffer(key_bytes)
    call(_MAP_NEXT_KEY, _MapElement(fd, _address(key), ctypes.addressof(following)))
    return following.raw


def map_freeze(fd: int) -> None:
    """Refuses further updates through bpf(2), which lets the verifier read the constants of a read-only map."""
    call(_MAP_FREEZE, _MapFreeze(fd))


def possible_cpus() -> int:
    """How many values a per-CPU map holds for a key."""
    with open("/sys/devices/system/cpu/possible") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)


def _address(data: bytes | None) -> int:
    """The address of an immutable buffer's bytes; the caller's reference keeps them alive during the call."""
    return 0 if data is None else ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


# -- programs -----------------------------------------------------------------------------------------------------


def prog_load(
    prog_type: int,
    code: bytes,
    *,
    name: str = "",
    license: str = "Dual BSD/GPL",
    attach_type: int = 0,
    flags: int = 0,
    log_level: int = 0,
    btf_fd: int = 0,
    functions: bytes = b"",
    lines: bytes = b"",
) -> tuple[int, str]:
    """A verified program's file descriptor and the verifier's log.

    code: 8 bytes an instruction, relocated: map references carry file descriptors.
    log_level: 1 or 2 for a log of a program that is accepted too; one that is refused is always logged.
    btf_fd, functions, lines: type information, and records that refer to it (functions.Description).
    Raises Refused.
    """
    terms = license.encode()
    attribute = _ProgLoad(prog_type, len(code) // 8, _address(code), _address(terms))
    attribute.prog_name, attribute.expected_attach_type, attribute.prog_flags = _object_name(name), attach_type, flags
    if functions:
        attribute.prog_btf_fd, attribute.func_info_rec_size = btf_fd, RECORD_BYTES
        attribute.func_info, attribute.func_info_cnt = _address(functions), len(functions) // RECORD_BYTES
    if lines:
        attribute.line_info_rec_size, attribute.line_info = LINE_RECORD_BYTES, _address(lines)
        attribute.line_info_cnt = len(lines) // LINE_RECORD_BYTES
    if not log_level:
        try:
            return call(_PROG_LOAD, attribute), ""
        except OSError:  # once more, for the log
            log_level = 1
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attribute.log_level, attribute.log_size, attribute.log_buf = log_level, len(log), ctypes.addressof(log)
    try:
        return call(_PROG_LOAD, attribute), log.value.decode(errors="replace")
    except OSError as error:
        raise Refused(error.errno or 0, log.value.decode(errors="replace")) from None


@dataclass(frozen=True, slots=True)
class TestRun:
    """What BPF_PROG_TEST_RUN reports: the program's return value (32 bits), the packet after it, the mean duration of a
    run in nanoseconds, and what became of the context that was given. (An XDP packet begins with its metadata, and the
    context says how much that is: `data`.)"""

    __test__ = False  # no test class, whatever pytest reads into its name

    value: int
    data: bytes
    duration: int
    context: bytes


def prog_test_run(fd: int, data: bytes, *, context: bytes = b"", repeat: int = 1, room: int = 1 << 16) -> TestRun:
    """Runs a program on a packet, in the calling thread's network namespace and on its CPU.

    data: from the destination address on, at least 14 bytes; an XDP program of linear frames takes up to 3,520.
    context: the program type's context structure (`struct xdp_md`), or nothing for its defaults.
    room: bytes kept for the packet that comes out; ENOSPC when it is longer.
    """
    out = ctypes.create_string_buffer(room)
    attribute = _TestRun(fd, 0, len(data), room, _address(data), ctypes.addressof(out), repeat)
    if context:
        attribute.ctx_size_in, attribute.ctx_in = len(context), _address(context)
    behind = ctypes.create_string_buffer(len(context) or 1)
    if context:
        attribute.ctx_size_out, attribute.ctx_out = len(context), ctypes.addressof(behind)
    call(_PROG_TEST_RUN, attribute)
    packet = out.raw[: attribute.data_size_out]
    return TestRun(attribute.retval, packet, attribute.duration, behind.raw[: len(context)])


def btf_load(data: bytes) -> int:
    """File descriptor of type information that maps and programs can refer to. Raises Refused."""
    attribute = _BtfLoad(_address(data), 0, len(data))
    try:
        return call(_BTF_LOAD, attribute)
    except OSError:  # once more, for the log
        log = ctypes.create_string_buffer(_LOG_BYTES)
        attribute.btf_log_buf, attribute.btf_log_size, attribute.btf_log_level = ctypes.addressof(log), len(log), 1
        try:
            return call(_BTF_LOAD, attribute)
        except OSError as error:
            raise Refused(error.errno or 0, log.value.decode(errors="replace")) from None
