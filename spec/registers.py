"""The register map of the NIC, written once: the hardware's decoder, the driver, the golden model and the docs read it.

32-bit registers at byte addresses on AXI4-Lite. `Access`: RO read only, RW read and write, WO write only (reads 0).
A register with `count` stands at `offset + stride * i`. Counters are what the last write to SNAPSHOT copied, all in
the same clock, so that at every read  received = dropped + passed + transmitted + redirected + aborted + refused
+ in flight  holds for each ingress.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.metadata import RSS_KEY_BYTES
from bpfnic.spec.programs import Hook, ProgramType

MAGIC = 0x4E465042  # "BPFN", the first byte lowest
VERSION = 0x0002_0000
ADDRESS_BITS = 12  # byte address


class Access(Enum):
    RO = "ro"
    RW = "rw"
    WO = "wo"


@dataclass(frozen=True)
class Register:
    """One register, or `count` of them `stride` bytes apart."""

    name: str
    offset: int
    access: Access
    doc: str
    count: int = 1
    stride: int = 4
    reset: int = 0

    def address(self, index: int = 0) -> int:
        """Byte address of the register (of the `index`-th of an array)."""
        if not 0 <= index < self.count:
            raise IndexError(f"{self.name}[{index}]: there are {self.count}")
        return self.offset + self.stride * index


_RO, _RW, _WO = Access.RO, Access.RW, Access.WO
INTERFACES = 5  # ingresses and egresses that the map has room for: up to 3 ports, the host, and what programs clone
_INTERFACE = {"count": INTERFACES, "stride": 0x40}
_COUNTER = {"count": INTERFACES, "stride": 0x80}

REGISTERS = (
    # The device describes itself.
    Register("MAGIC", 0x000, _RO, "0x4E465042, the characters BPFN"),
    Register("VERSION", 0x004, _RO, "version of this register map: major in bits 31..16, minor below"),
    Register("ENGINE", 0x008, _RO, "what executes programs: 0 barrel processor"),
    Register("CORES", 0x00C, _RO, "cores"),
    Register("THREADS", 0x010, _RO, "hardware threads of a core; a program's CPU number is core * threads + thread"),
    Register("PROGRAM_SLOTS", 0x014, _RO, "8-byte instruction slots in the program store"),
    Register("PACKET_BUFFERS", 0x018, _RO, "packet buffers of a core"),
    Register("BUFFER_BYTES", 0x01C, _RO, "bytes of a packet buffer, headroom and tailroom included"),
    Register("MAP_BYTES", 0x020, _RO, "bytes of map memory"),
    Register("MAPS", 0x024, _RO, "map descriptors"),
    Register("PORTS", 0x028, _RO, "network ports; interface number PORTS is the host"),
    Register("GROUPS", 0x02C, _RO, "conformance groups, a bit each in the order of isa.Group"),
    Register("MAP_TYPES", 0x030, _RO, "map types, bit n of the array is map type n", count=2),
    Register("HELPERS", 0x040, _RO, "helpers, bit n of the array is helper n", count=8),
    Register("PROGRAM_TYPES", 0x060, _RO, "program types, bit n is ProgramType n"),
    # Control.
    Register(
        "CONTROL",
        0x100,
        _RW,
        "bit 0: accept packets from the ingresses; bit 1: packets of one flow (one pair of IP addresses) never run "
        "at the same time, from when nothing is in flight on",
        reset=0,
    ),
    Register("BUDGET", 0x104, _RW, "instructions that one packet may retire", reset=0x00FF_FFFF),
    Register("SNAPSHOT", 0x108, _WO, "any write copies every counter, in one clock"),
    Register("CLOCK_NS", 0x10C, _RW, "nanoseconds that the time advances each clock", reset=8),
    Register("TIME", 0x110, _RW, "nanoseconds: low word, high word; a write of the high word sets both", count=2),
    Register("RANDOM_SEED", 0x118, _WO, "restarts the random number generator"),
    # Program store: the address counts 32-bit halves of slots and advances with each access of the data register.
    Register("PROGRAM_ADDRESS", 0x120, _RW, "slot * 2 + half"),
    Register("PROGRAM_DATA", 0x124, _RW, "half a slot; the slot is written with its upper half"),
    # Map memory: the address advances with each access of the data register, by as many bytes as the access takes.
    Register("MAP_ADDRESS", 0x128, _RW, "byte offset in map memory, a multiple of the access's bytes"),
    Register("MAP_DATA", 0x12C, _RW, "bytes of map memory, the first one lowest; zero behind the last"),
    Register(
        "MAP_WIDTH",
        0x11C,
        _RW,
        "bits 1..0: bytes of an access of MAP_DATA, 0 for one, 1 for two, others for four; bit 2: four bytes that are "
        "read become 1 in the same step, which takes a spin lock",
        reset=2,
    ),
    # Map descriptors: written field by field; one write to MAP_COMMIT makes them descriptor MAP_COMMIT at once.
    Register("MAP_TYPE", 0x130, _RW, "map type, 0 for none"),
    Register("MAP_BASE", 0x134, _RW, "byte offset of entry 0 in map memory, a multiple of 16"),
    Register("MAP_ENTRIES", 0x138, _RW, "max_entries"),
    Register("MAP_STRIDE", 0x13C, _RW, "bytes from one entry to the next"),
    Register("MAP_VALUE_SIZE", 0x140, _RW, "value_size in bytes"),
    Register("MAP_CPU_STRIDE", 0x144, _RW, "bytes from one CPU's copy to the next, 0 for a map that all CPUs share"),
    Register("MAP_COMMIT", 0x148, _WO, "index of the descriptor to write"),
    Register("MAP_KEY_SIZE", 0x14C, _RW, "key_size in bytes", reset=INDEX_BYTES),
    Register(
        "MAP_TABLE",
        0x19C,
        _RW,
        "maps with a table (spec.tables): its byte offset, a multiple of 16; rings (spec.rings): their bytes, less 1",
    ),
    Register("MAP_BUCKETS", 0x1A0, _RW, "buckets of the table, a power of two, less one"),
    Register("MAP_LINKS", 0x1A4, _RW, "the same of its links"),
    Register("MAP_KEYS", 0x1A8, _RW, "the same of its keys"),
    Register("MAP_ORDER", 0x1AC, _RW, "the same of its order"),
    Register(
        "HASH_SECRET",
        0x1B0,
        _WO,
        "the next 32 bits of the secret that keys the hash of all maps: HASH_SECRET_WORDS writes of random bits, "
        "before there is any keyed map",
    ),
    Register("MAP_LOCK", 0x1B4, _RW, "byte offset of the spin lock in a value, plus 1; 0 where there is none"),
    # Receive metadata. The key takes effect at once: it is for the driver to write before packets come.
    Register(
        "RSS_KEY",
        0x1C0,
        _WO,
        "the key of the RSS hash, 4 bytes a register, the first byte lowest",
        count=RSS_KEY_BYTES // 4,
    ),
    # Maps with keys of their own. A command is done when its write is answered, and puts MAP_ADDRESS at the value that
    # it found or reserved. An update stands beside the old value until it is whole: RESERVE a place, write the value
    # there, INSERT it under the key. Many commands may follow each other before MAP_STATUS is read: behind one that
    # fails none is done until then, and MAP_DATA does nothing (reads 0) until MAP_ADDRESS is written or a command
    # finds a value.
    Register("MAP_KEY", 0x150, _RW, "key of a command, the first byte lowest; what lies behind its end doesn't count",
             count=16),  # fmt: skip
    Register("MAP_COMMAND", 0x190, _WO, "bits 7..0 map, bits 11..8 MapCommand, bits 17..16 flags of an INSERT"),
    Register(
        "MAP_STATUS",
        0x194,
        _RO,
        "of the commands since it was read last: bits 7..0 the error number of the one that failed, 0 for none; bits "
        "31..8 how many were done, modulo 2**24",
    ),
    Register(
        "CHAIN",
        0x1B8,
        _WO,
        "a program behind another one of its hook: as ENTRY, and bits 21..18 which word (1 to 15). It changes while no "
        "packet can come to it alone",
    ),
    # Interfaces: ports, then the host. Behind it, as an ingress alone, what programs clone.
    Register("IFINDEX", 0x200, _RW, "ifindex of the interface, 0 for none", **_INTERFACE),
    Register(
        "ENTRY",
        0x204,
        _RW,
        "program at the hook xdp: bit 31 valid, bits 27..24 the CHAIN word of the next one there (tc), 0 for none, "
        "bits 17..16 its type (ENTRY_TYPES), bits 15..0 its first slot",
        **_INTERFACE,
    ),
    Register(
        "MODE",
        0x208,
        _RW,
        "bit 0: ingress waits for a buffer instead of refusing the packet; bit 1: egress waits when its queue is full "
        "instead of dropping the packet",
        **_INTERFACE,
    ),
    Register("NEXT_SEQUENCE", 0x20C, _RO, "number of the next packet that this ingress accepts", **_INTERFACE),
    Register("OLDEST_SEQUENCE", 0x210, _RO, "number of the oldest packet in flight; NEXT if none", **_INTERFACE),
    Register("TCX_INGRESS", 0x214, _RW, "first program at the port's hook tcx/ingress, as ENTRY", **_INTERFACE),
    Register("TCX_EGRESS", 0x218, _RW, "first program at the port's hook tcx/egress, as ENTRY", **_INTERFACE),
    Register("SOCKET", 0x21C, _RW, "program at the port's hook socket, as ENTRY", **_INTERFACE),
    # Counters of ingress i, as of the last snapshot.
    Register("RECEIVED", 0x400, _RO, "frames that ended at this ingress", **_COUNTER),
    Register("RECEIVED_BYTES", 0x404, _RO, "their bytes, modulo 2**32", **_COUNTER),
    Register("REFUSED_FULL", 0x408, _RO, "refused for want of a buffer alone; of clones: -ENOMEM", **_COUNTER),
    Register("REFUSED_LONG", 0x40C, _RO, "refused: longer than the buffer", **_COUNTER),
    Register(
        "REFUSED_ERROR",
        0x410,
        _RO,
        "refused: marked bad by the MAC, shorter than 14 bytes, or from the host for a port that is not there",
        **_COUNTER,
    ),
    Register("DROPPED", 0x414, _RO, "XDP_DROP", **_COUNTER),
    Register("PASSED", 0x418, _RO, "XDP_PASS, or no program attached", **_COUNTER),
    Register("TRANSMITTED", 0x41C, _RO, "XDP_TX, and what the host sent", **_COUNTER),
    Register("REDIRECTED", 0x420, _RO, "XDP_REDIRECT to a port or a queue of the host", **_COUNTER),
    Register("ABORTED", 0x424, _RO, "ended with a cause", **_COUNTER),
    Register("IN_FLIGHT", 0x428, _RO, "accepted and not yet counted above", **_COUNTER),
    # Counters of egress i.
    Register("SENT", 0x440, _RO, "frames that left", **_COUNTER),
    Register("SENT_BYTES", 0x444, _RO, "their bytes, modulo 2**32", **_COUNTER),
    Register("EGRESS_DROPPED", 0x448, _RO, "dropped because the queue was full", **_COUNTER),
    # Counters of the whole device.
    Register("CAUSES", 0x680, _RO, "aborted packets by causes.Cause", count=16),
    Register("CLOCKS", 0x6C0, _RO, "clocks since reset: low word, high word", count=2),
    Register("RETIRED", 0x6C8, _RO, "instructions retired: low word, high word", count=2),
)

BY_NAME = {register.name: register for register in REGISTERS}


class MapCommand(IntEnum):
    """What MAP_COMMAND does with MAP_KEY. Errors are the kernel's."""

    LOOKUP = 1  # finds the value: ENOENT
    RESERVE = 2  # a place for a new value, kept until it is inserted: E2BIG
    INSERT = 3  # the reserved place under the key: E2BIG, EEXIST, ENOENT; then it stays reserved
    DELETE = 4  # removes the key: ENOENT
    FIRST = 5  # puts the first key into MAP_KEY, zeros behind its end, and finds its value: ENOENT
    NEXT = 6  # the same with the key behind MAP_KEY, the first if it is unknown: ENOENT behind the last
    POP = 7  # finds the value and removes it: ENOENT. Gives a reserved place back
    # The value that POP found, or LOOKUP in a QUEUE or STACK, is kept until the next command for the same map.


def command(index: int, operation: MapCommand, flags: int = 0) -> int:
    """A MAP_COMMAND word for map `index`."""
    return index | operation << 8 | flags << 16


STATUS_DONE_BIT = 8
"""Where in MAP_STATUS the number of commands begins."""

HASH_SECRET_WORDS = 40
"""Writes of HASH_SECRET: a digit of 40 bits for each 16 bits of a key."""

CONTROL_ENABLE = 1 << 0
CONTROL_FLOWS_APART = 1 << 1
ENTRY_VALID = 1 << 31
ENTRY_TYPE_BIT, ENTRY_TYPE_MASK = 16, 3
ENTRY_SLOT = (1 << ENTRY_TYPE_BIT) - 1
ENTRY_NEXT_BIT, CHAIN_BIT, CHAIN_WORDS = 24, 18, 16
HOOKS = {
    Hook.XDP: "ENTRY",
    Hook.TCX_INGRESS: "TCX_INGRESS",
    Hook.TCX_EGRESS: "TCX_EGRESS",
    Hook.SOCKET: "SOCKET",
}
"""The register that has a hook's first program."""
ENTRY_TYPES = (ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER)
"""Types of programs in the order of their numbers in ENTRY: by its program's type a packet's verdict is read."""


def entry_word(slot: int, program_type: ProgramType, following: int = 0) -> int:
    """What ENTRY, or an entry of a PROG_ARRAY, holds for a program of a type in ENTRY_TYPES at a slot; `following`: the
    CHAIN word of the next one."""
    return ENTRY_VALID | following << ENTRY_NEXT_BIT | ENTRY_TYPES.index(program_type) << ENTRY_TYPE_BIT | slot


def entry_next(word: int) -> int:
    """The CHAIN word of the next program, 0 for none."""
    return word >> ENTRY_NEXT_BIT & CHAIN_WORDS - 1


def entry_type(word: int) -> ProgramType:
    """The type in such a word, XDP where it is none of them."""
    number = word >> ENTRY_TYPE_BIT & ENTRY_TYPE_MASK
    return ENTRY_TYPES[number] if number < len(ENTRY_TYPES) else ProgramType.XDP


WIDTH_TAKES = 1 << 2
MODE_INGRESS_WAITS = 1 << 0
MODE_EGRESS_WAITS = 1 << 1
