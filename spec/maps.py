"""Map types, flags and errors, with the names and numbers of linux/bpf.h and asm-generic/errno-base.h."""

from enum import IntEnum, IntFlag


class MapType(IntEnum):
    """`enum bpf_map_type` of Linux 6.18. Which of them a device has is in its capability block."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


PER_CPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})
"""Types that hold one value a CPU (a hardware thread, on the NIC) for each key."""

OF_MAPS = frozenset({MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
"""Types whose values are maps."""

LRU = frozenset({MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
"""Types that make room for a new key by evicting an old one."""

QUEUES = frozenset({MapType.QUEUE, MapType.STACK})
"""Types of values without keys."""

EVENTS = frozenset({MapType.RINGBUF, MapType.PERF_EVENT_ARRAY})
"""Types of records that programs send to the host (spec.rings)."""

KEYED = frozenset(
    {MapType.HASH, MapType.PERCPU_HASH, MapType.LPM_TRIE, MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH} | LRU
)
"""Types with keys of their own, to which the host comes by commands (registers.MapCommand)."""

INNER = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY}) | KEYED - OF_MAPS - {MapType.DEVMAP_HASH} | QUEUES
"""Types that a map of maps may hold."""

MAP_BYTES = 4
"""Bytes of a value of a map of maps: a map's file descriptor in Linux, on a NIC its handle, 0 for none."""


LOCK_BYTES = 4
"""Bytes of a value's `struct bpf_spin_lock`: 1 where a program holds it, otherwise 0."""

LOCK_TYPES = frozenset({MapType.ARRAY, MapType.HASH})
"""Types whose values may have one."""


class MapFlag(IntFlag):
    """`map_flags` of BPF_MAP_CREATE."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    STACK_BUILD_ID = 1 << 5
    ZERO_SEED = 1 << 6
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    PRESERVE_ELEMS = 1 << 11
    INNER_MAP = 1 << 12
    LINK = 1 << 13
    PATH_FD = 1 << 14
    VTYPE_BTF_OBJ_FD = 1 << 15
    TOKEN_FD = 1 << 16
    SEGV_ON_FAULT = 1 << 17
    NO_USER_CONV = 1 << 18


_PROG_ACCESS = MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
_ACCESS = MapFlag.RDONLY | MapFlag.WRONLY | _PROG_ACCESS
_HASH = MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE | MapFlag.ZERO_SEED | _ACCESS
_LRU = MapFlag.NO_COMMON_LRU | MapFlag.NUMA_NODE | MapFlag.ZERO_SEED | _ACCESS
_FILES = MapFlag.NUMA_NODE | MapFlag.RDONLY | MapFlag.WRONLY
FLAGS = {
    MapType.ARRAY: _ACCESS | MapFlag.NUMA_NODE | MapFlag.MMAPABLE | MapFlag.INNER_MAP,
    MapType.PERCPU_ARRAY: _ACCESS,
    MapType.PROG_ARRAY: _FILES,
    MapType.HASH: _HASH,
    MapType.PERCPU_HASH: _HASH & ~MapFlag.NUMA_NODE,
    MapType.LRU_HASH: _LRU,
    MapType.LRU_PERCPU_HASH: _LRU & ~MapFlag.NUMA_NODE,
    MapType.LPM_TRIE: MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE | _ACCESS,
    MapType.ARRAY_OF_MAPS: MapFlag.NUMA_NODE | MapFlag.RDONLY | MapFlag.WRONLY,
    MapType.HASH_OF_MAPS: _HASH,
    MapType.RINGBUF: MapFlag.NUMA_NODE,
    MapType.PERF_EVENT_ARRAY: _FILES | MapFlag.PRESERVE_ELEMS,
    MapType.QUEUE: MapFlag.NUMA_NODE | _ACCESS,
    MapType.STACK: MapFlag.NUMA_NODE | _ACCESS,
    MapType.DEVMAP: _FILES,
    MapType.DEVMAP_HASH: _FILES,
    MapType.CPUMAP: MapFlag.NUMA_NODE,
    MapType.XSKMAP: _FILES,
}
"""What each type takes of the flags of BPF_MAP_CREATE (the kernel's map_alloc_check functions)."""


def flags_refused(map_type: MapType, flags: MapFlag) -> str:
    """Why BPF_MAP_CREATE is EINVAL with these flags for a map of a type, "" if it isn't."""
    if refused := flags & ~FLAGS[map_type]:
        return f"flag {_names(refused)} is not for this map type"
    if flags & _PROG_ACCESS == _PROG_ACCESS or flags & (both := MapFlag.RDONLY | MapFlag.WRONLY) == both:
        return f"flags {_names(flags & _ACCESS)} leave no access"
    if map_type is MapType.LPM_TRIE and not flags & MapFlag.NO_PREALLOC:
        return "flag NO_PREALLOC must be given for this map type"
    return ""


def _names(flags: MapFlag) -> str:
    return ", ".join(str(flag.name) for flag in MapFlag if flag & flags)


class UpdateFlag(IntEnum):
    """`flags` of an update; anything above BPF_EXIST is EINVAL, but LOCK where the value has a spin lock."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2
    LOCK = 4


class Errno(IntEnum):
    """The errors that map operations and helpers return, negated, and that BPF_PROG_TEST_RUN fails with."""

    EPERM = 1
    ENOENT = 2
    E2BIG = 7
    EAGAIN = 11
    ENOMEM = 12
    EACCES = 13
    EFAULT = 14
    EBUSY = 16
    EEXIST = 17
    ENODEV = 19
    EINVAL = 22
    ENOSPC = 28
    ERANGE = 34
    EOVERFLOW = 75
    EOPNOTSUPP = 95


LPM_LENGTH_BYTES = 4
"""Bytes of an LPM_TRIE's key before the address: the length of the prefix in bits."""

PROGRAM_BYTES = 4
"""Bytes of a PROG_ARRAY's value: a program's file descriptor in Linux, on a NIC its entry, as in the register ENTRY."""

DEVMAPS = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH})
"""Types whose entries are ports."""

REDIRECT_MAPS = DEVMAPS | {MapType.CPUMAP, MapType.XSKMAP}
"""Types whose entries say where bpf_redirect_map sends a packet: to a port, or to a queue of the host."""

# On a NIC an entry of these is a 32-bit word, which the host writes in one access. A map of queues has REDIRECT_QUEUE
# in its empty entries too, and what lies behind its end reads as -ENOENT, which has that bit and not REDIRECT_TAKEN.
REDIRECT_BYTES = 4
REDIRECT_TAKEN = 1 << 0
REDIRECT_QUEUE = 1 << 1
REDIRECT_SHIFT = 8  # the number of the port or of the queue, in 8 bits
HOST_QUEUES = 64
"""Queues that the NIC's host stream tells apart: what a CPUMAP's or XSKMAP's indexes are."""
QUEUE_USER_BIT = 7
"""Where in an egress beat's tuser the queue's number begins."""


def redirect_word(map_type: MapType, number: int | None) -> int:
    """The entry of a redirect map that leads to a port or queue; None: the empty one."""
    word = 0 if map_type in DEVMAPS else REDIRECT_QUEUE
    return word if number is None else word | REDIRECT_TAKEN | number << REDIRECT_SHIFT


class RedirectFlag(IntEnum):
    """`flags` of bpf_redirect_map above ACTION, the verdict where there is no entry."""

    BROADCAST = 1 << 3
    EXCLUDE_INGRESS = 1 << 4


REDIRECT_ACTION = 3
"""The bits of those flags that are an XDP action."""

MAX_TAIL_CALLS = 33
"""Tail calls that one packet may make (MAX_TAIL_CALL_CNT)."""

MAX_NAME = 15
"""Characters of a map's or program's name that the kernel keeps (BPF_OBJ_NAME_LEN, without the final 0)."""
