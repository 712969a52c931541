"""What the blocks of the NIC say to each other: layouts, streams and signatures. docs/hardware.md draws them.

Streams are Amaranth's (valid, ready, payload; a transfer happens in a clock in which both are high, and `valid` never
waits for `ready`). Everything is in the domain "sync".
"""

from amaranth import unsigned
from amaranth.lib import data, stream
from amaranth.lib.enum import Enum, IntEnum
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.spec import addresses, tables
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.maps import HOST_QUEUES
from bpfnic.spec.rings import EVENT_USER_BIT

# ---------------------------------------------------------------- core <-> packet path


class Region(Enum, shape=2):
    """Which local window an access hits."""

    STACK = 0
    CONTEXT = 1
    PACKET = 2


def Start(config: NicConfig) -> data.StructLayout:
    """Packet path -> core: run a program on a thread. Its context, bounds and cleared stack are in place already."""
    return data.StructLayout({"thread": range(config.threads), "pc": range(config.program_slots)})


def Finish(config: NicConfig) -> data.StructLayout:
    """Core -> packet path: a thread is done. `cause` (spec.causes): 0 after an exit; `verdict`: low half of r0 then."""
    return data.StructLayout({"thread": range(config.threads), "verdict": 32, "cause": 4})


def Bounds(config: NicConfig) -> data.StructLayout:
    """Where a thread's packet lies: its buffer, and offsets in it. data_meta <= data <= data_end <= buffer_bytes."""
    offset = range(config.buffer_bytes + 1)
    return data.StructLayout(
        {"buffer": range(config.packet_buffers), "data_meta": offset, "data": offset, "data_end": offset}
    )


def BoundsPort(config: NicConfig) -> Signature:
    """Core asks, packet path answers in the same clock (distributed memory)."""
    return Signature({"thread": Out(range(config.threads)), "bounds": In(Bounds(config))})


def LocalPort(config: NicConfig) -> Signature:
    """The core's access to its stack, context and packet memories: one each clock, never stalls.

    The request is checked already (window, alignment). `offset` counts bytes from the start of the window's region: of
    the thread's stack (0..511), its context (0..63) or the packet buffer `buffer`. `size` is the logarithm of the bytes
    (0..3). Packets take any alignment, and so do loads from the stack, for what helpers' arguments point at.
    `write_data` is right-aligned. `read_data` is right-aligned and zero-extended, and valid exactly 3 clocks after the
    clock of the request (block RAM, its output register, alignment register).
    """
    return Signature(
        {
            "enable": Out(1),
            "write": Out(1),
            "region": Out(Region),
            "thread": Out(range(config.threads)),
            "buffer": Out(range(config.packet_buffers)),
            "offset": Out(range(config.buffer_bytes)),
            "size": Out(2),
            "write_data": Out(64),
            "read_data": In(64),
        }
    )


class Service(Enum, shape=2):
    """Helpers that change what the packet path holds for a thread."""

    REDIRECT = 0  # a: r1 ifindex, b: r2 flags
    ADJUST_HEAD = 1  # a: unused, b: r2 delta
    ADJUST_TAIL = 2  # a: unused, b: r2 delta
    REDIRECT_MAP = 3  # a: the entry (spec.maps.redirect_word), b: r3 flags


def ServiceRequest(config: NicConfig) -> data.StructLayout:
    """Core -> packet path. The thread has left the rotation until the Answer."""
    return data.StructLayout({"thread": range(config.threads), "service": Service, "a": 64, "b": 64})


def Answer(config: NicConfig) -> data.StructLayout:
    """Packet path -> core: r0 of the helper."""
    return data.StructLayout({"thread": range(config.threads), "value": 64})


# ---------------------------------------------------------------- core (and host) <-> map memory


class MapOperation(Enum, shape=4):
    """What a bank does. Atomics are 4 or 8 bytes, naturally aligned, and answer with the old value.

    From AND on, the lower two bits are core.control.Logic: what computes the new value of one that is local.
    """

    LOAD = 0
    STORE = 1
    CMPXCHG = 2
    ADD = 3
    AND = 4
    OR = 5
    XOR = 6
    XCHG = 7


def MapRequest(config: NicConfig) -> data.StructLayout:
    """One access within one 16-byte row of map memory.

    address: byte offset in map memory. bytes: 1 to 8 (of a STORE 0, too), address % 16 + bytes <= 16. data:
    right-aligned store data or operand; for LOAD it is ORed into the answer (the second half of an access that crosses
    a row brings the first half along, already in place, and sets `shift`). shift: bytes by which the answer of a LOAD
    is moved up. compare: for CMPXCHG. tag: comes back with the answer.
    """
    return data.StructLayout(
        {
            "tag": 8,
            "operation": MapOperation,
            "address": range(config.map_bytes),
            "bytes": 4,
            "shift": 3,
            "data": 64,
            "compare": 64,
        }
    )


MapAnswer = data.StructLayout({"tag": 8, "data": 64})
"""Answer to every MapRequest, stores included: zero-extended data (old value for atomics)."""


def MapPort(config: NicConfig) -> Signature:
    """A requester's side of map memory. Answers to one requester may come in another order than its requests."""
    return Signature(
        {"request": Out(stream.Signature(MapRequest(config))), "answer": In(stream.Signature(MapAnswer))}
    )


# ---------------------------------------------------------------- core <-> map engine


class MapCall(Enum, shape=5):
    """The helper that a word belongs to."""

    LOOKUP = 0
    UPDATE = 1
    DELETE = 2
    TAIL = 3  # tail call: a look-up in a PROG_ARRAY, which the others take for no map
    REDIRECT = 4  # a look-up in a redirect map, likewise
    INSERT = 5  # the end of an UPDATE, PUSH, OUTPUT or EVENT whose answer asked for it: what was copied takes its place
    CHECK = 6  # the key can't be read: is it a map at all?
    PUSH = 7
    POP = 8
    PEEK = 9
    RELEASE = 10  # the end of a POP or PEEK: its value is copied
    RESERVE = 11  # bpf_ringbuf_reserve
    OUTPUT = 12  # bpf_ringbuf_output
    SUBMIT = 13  # bpf_ringbuf_submit
    DISCARD = 14  # bpf_ringbuf_discard
    QUERY = 15  # bpf_ringbuf_query
    EVENT = 16  # bpf_perf_event_output


LOCK = range(4096)
"""As in register MAP_LOCK: the byte offset of a value's spin lock, plus 1; 0 where it has none. Bit 0 says which."""


def EngineWord(config: NicConfig) -> data.StructLayout:
    """Core -> engine: arguments of one call, word by word; a thread has one call under way at most.

    - LOOKUP, DELETE: the key, 8 bytes a word, the first bytes first (`number` counts words; what of the last one lies
      behind the key may hold anything). UPDATE: its flags (r4), then the key.
    - TAIL, REDIRECT: the index (r3; r2).
    - PUSH: its flags (r3). POP, PEEK: a word that may be anything.
    - RESERVE, OUTPUT: flags (r3; r4), then the size in bytes (r2; r3). SUBMIT, DISCARD: flags (r2). QUERY: what it asks
      for (r2).
    - EVENT: flags (r3), then the size (r5), then the packet's data and data_end, the lower and the upper half.
    - INSERT, RELEASE, and CHECK, which may stand in the place of a word of a key: a word that may be anything.

    `last` is high with a call's last word, `flags` with flags (a PUSH, SUBMIT or DISCARD has both in its word). handle:
    the map's as the program has it (r1; of TAIL and EVENT r2); of SUBMIT and DISCARD r1, the record's address. All 64
    bits of registers, as they are.
    """
    return data.StructLayout(
        {
            "thread": range(config.threads),
            "call": MapCall,
            "flags": 1,
            "last": 1,
            "number": range(MAX_KEY_BYTES // 8),
            "handle": 64,
            "data": 64,
        }
    )


def EngineAnswer(config: NicConfig) -> data.StructLayout:
    """Engine -> core, once a call.

    lock: of the map's values. trap: `handle` is no map (or record) of this device: the thread ends with Cause.MAP.
    Otherwise `value` is what the helper returns (for LOOKUP and RESERVE an address or 0; an error number,
    sign-extended), or, when `copy` is high, the call goes on with the bytes at the address `value` in map memory:

    - UPDATE, PUSH, OUTPUT, EVENT: the thread copies `size` bytes there, in 8-byte steps, from r3, r2, r2 and r4; an
      EVENT then as many bytes of the packet, from its first byte on, as bits 51..32 of its flags say, right behind.
      Then it returns 0, or with `insert` sends INSERT, and returns what that answers.
      An UPDATE leaves the 4 bytes of the value's lock alone; with `locked` it takes the lock before it copies, and
      leaves it when it has.
    - POP, PEEK: the thread copies `size` bytes from there to r2, sends RELEASE, and returns what that answers.
    - TAIL, REDIRECT: the entry that it goes by is there (otherwise there is none, and `value` is what a REDIRECT takes
      for an empty one).
    - LOOKUP: the map is one of maps. What the helper returns is there, in 4 bytes: the inner map's handle, or 0.
    """
    return data.StructLayout(
        {
            "thread": range(config.threads),
            "trap": 1,
            "copy": 1,
            "insert": 1,
            "locked": 1,
            "lock": LOCK,
            "size": range(4097),
            "value": 64,
        }
    )


def EnginePort(config: NicConfig) -> Signature:
    """A core's side of the map engine."""
    return Signature(
        {"word": Out(stream.Signature(EngineWord(config))), "answer": In(stream.Signature(EngineAnswer(config)))}
    )


def MapDescriptor(config: NicConfig) -> data.StructLayout:
    """One map, as the driver wrote it (spec.registers MAP_*)."""
    return data.StructLayout(
        {
            "type": 6,
            "base": range(config.map_bytes),
            "entries": 32,
            "stride": bits_for(4096 + 16),
            "value_size": range(4097),
            "cpu_stride": range(config.map_bytes),
            "key_size": range(MAX_KEY_BYTES + 1),
            "table": range(config.map_bytes),
            "buckets": range(max(2, config.map_bytes // addresses.ROW_BYTES)),
            "links": range(config.map_bytes),
            "keys": range(config.map_bytes),
            "order": range(config.map_bytes),
            "lock": LOCK,
        }
    )


def key_slots(config: NicConfig) -> int:
    """Keys that the map engine holds: one for each CPU, then the host's, and those that it makes up itself."""
    return config.cores * config.threads + 1 + SCRATCH_KEYS


SCRATCH_KEYS = 8
"""A power of two: as many searches of the serial unit for keys that it makes up may be under way."""


def KeyWord(config: NicConfig) -> data.StructLayout:
    """Serial unit -> front: word `number` of the key in `slot` (number 0 begins a key), zeros behind the key's end."""
    return data.StructLayout(
        {"slot": range(key_slots(config)), "number": range(MAX_KEY_BYTES // 8), "data": 64}
    )


def KeyReadPort(config: NicConfig) -> Signature:
    """Serial unit -> front: word `number` of the key in `slot`. `request` waits for `grant` (same clock); `word` is
    there 2 clocks after it (a block RAM's latency)."""
    return Signature(
        {
            "request": Out(1),
            "slot": Out(range(key_slots(config))),
            "number": Out(range(MAX_KEY_BYTES // 8)),
            "grant": In(1),
            "word": In(64),
        }
    )


FIND_CLOCKS = 4
"""Clocks from a key's last word to the first in which it may be searched for: its hash is known."""


def Find(config: NicConfig) -> data.StructLayout:
    """Serial unit -> finder: where is the key in `slot`? Its last word was taken FIND_CLOCKS clocks ago or earlier. For
    an LPM_TRIE `length` is the length of the key's prefix: of a stored key the bits behind it don't count."""
    return data.StructLayout({"slot": range(key_slots(config)), "length": 9})


def Found(config: NicConfig) -> data.StructLayout:
    """Finder -> serial unit, for each Find, in any order, each in the one clock in which `valid` is high.

    place: the key's, if `found`. link: byte offset in map memory of the link word that names it. bucket: byte offset of
    the key's bucket. tag: of its link word."""
    return data.StructLayout(
        {
            "valid": 1,
            "slot": range(key_slots(config)),
            "found": 1,
            "place": tables.PLACE_BITS,
            "link": range(config.map_bytes),
            "bucket": range(config.map_bytes),
            "tag": tables.TAG_BITS,
        }
    )


def SearchPort(config: NicConfig) -> Signature:
    """Serial unit -> front and finder. While the unit asks, `descriptor` stays as it is. hold: no program's look-up
    begins; idle: and none is under way (it holds from the clock in which it is high until `hold` goes down)."""
    return Signature(
        {
            "key": Out(stream.Signature(KeyWord(config))),
            "read": Out(KeyReadPort(config)),
            "find": Out(stream.Signature(Find(config))),
            "found": In(Found(config)),
            "descriptor": Out(MapDescriptor(config)),
            "hold": Out(1),
            "idle": In(1),
        }
    )


def RowPort(config: NicConfig) -> Signature:
    """Map engine -> map memory: reads 16-byte row `row`. `request` waits for `grant` (same clock); `data` is the row 3
    clocks after it."""
    return Signature(
        {
            "request": Out(1),
            "row": Out(range(config.map_bytes // addresses.ROW_BYTES)),
            "grant": In(1),
            "data": In(8 * addresses.ROW_BYTES),
        }
    )


def TablePort(config: NicConfig) -> Signature:
    """Map engine -> map memory: an access to 8 bytes, word `address`. `request` waits for `grant` (same clock).
    `write`: the halves that are written, the lower one in bit 0; `word`: what was read, 3 clocks after the grant."""
    return Signature(
        {
            "request": Out(1),
            "address": Out(range(config.map_bytes // 8)),
            "write": Out(2),
            "data": Out(64),
            "grant": In(1),
            "word": In(64),
        }
    )


def MapHostPort(config: NicConfig) -> Signature:
    """Control -> engine: the host's side of keyed maps (spec.registers MAP_KEY to MAP_STATUS).

    `key` of word `key_word` is there in the same clock; with `key_write` it becomes `key_data`. `command` stays high
    (with its fields) up to the clock of `done`, in which `status` is valid, and if `found` also `value`. The bytes
    behind a key's end may be anything; FIRST and NEXT leave zeros there, and find the key's value.
    """
    return Signature(
        {
            "key_word": Out(range(MAX_KEY_BYTES // 4)),
            "key_write": Out(1),
            "key_data": Out(32),
            "key": In(32),
            "command": Out(1),
            "index": Out(8),
            "operation": Out(4),
            "flags": Out(2),
            "done": In(1),
            "found": In(1),
            "status": In(6),
            "value": In(range(config.map_bytes)),
        }
    )


def HashSecret(config: NicConfig) -> Signature:
    """Control -> engine: the next 32 bits of the secret that keys the hash (register HASH_SECRET)."""
    return Signature({"write": Out(1), "data": Out(32)})


def DescriptorWrite(config: NicConfig) -> Signature:
    """Control -> engine: replaces one descriptor in one clock."""
    return Signature(
        {"enable": Out(1), "index": Out(range(config.maps)), "descriptor": Out(MapDescriptor(config))}
    )


# ---------------------------------------------------------------- program store


def ProgramRead(config: NicConfig) -> Signature:
    """A core's fetch: `slot` in one clock, all outputs valid exactly 2 clocks later. `next_imm` is the upper half of
    the following slot (the second half of a 16-byte instruction), `next_reserved` says that its lower half is not 0."""
    return Signature(
        {
            "slot": Out(range(config.program_slots)),
            "instruction": In(64),
            "next_imm": In(32),
            "next_reserved": In(1),
        }
    )


def ProgramWrite(config: NicConfig) -> Signature:
    """Control -> every core's copy of the program store. In a clock without `enable` the slot is read: `read_data` 2
    clocks later."""
    return Signature(
        {"enable": Out(1), "slot": Out(range(config.program_slots)), "data": Out(64), "read_data": In(64)}
    )


# ---------------------------------------------------------------- packets in and out


def Beat(user: int) -> data.StructLayout:
    """One AXI4-Stream transfer of 8 bytes, the first byte lowest. keep: a run of ones from bit 0, all ones but in the
    last beat. Ingress user bit 0: the frame is bad (with `last`). Host ingress: user bits 3..1 are the egress port.
    Egress user: bits 2..0 the ingress interface, bits 6..3 the XDP action (15: none ran), bits 12..7 the queue of a
    frame that a program redirected to the host, otherwise 0. Bit 13: it is no packet but a record (spec.rings), and all
    others are 0."""
    return data.StructLayout({"data": 64, "keep": 8, "last": 1, "user": user})


INGRESS_USER = 4
QUEUE_BITS = exact_log2(HOST_QUEUES)
EGRESS_USER = EVENT_USER_BIT + 1


# ---------------------------------------------------------------- control <-> packet path


def InterfaceControl(config: NicConfig) -> data.StructLayout:
    """What the registers say of one interface (spec.registers IFINDEX, ENTRY, MODE)."""
    return data.StructLayout(
        {
            "ifindex": 32,
            "entry_valid": 1,
            "entry": range(config.program_slots),
            "ingress_waits": 1,
            "egress_waits": 1,
        }
    )


class IngressEvent(IntEnum):
    """Counted per ingress: the counters of spec.registers in their order (RECEIVED_BYTES apart)."""

    RECEIVED = 0
    REFUSED_FULL = 1
    REFUSED_LONG = 2
    REFUSED_ERROR = 3
    DROPPED = 4
    PASSED = 5
    TRANSMITTED = 6
    REDIRECTED = 7
    ABORTED = 8


def InterfaceStatus(config: NicConfig) -> data.StructLayout:
    """Packet path -> control, one an interface. Each event bit is a count of one in that clock; the bytes belong to
    RECEIVED and SENT of the same clock. in_flight and the sequence numbers are levels of the same clock's start: a
    packet is in flight from the clock of its RECEIVED (if not refused then) to the clock of its outcome's event."""
    return data.StructLayout(
        {
            "events": len(IngressEvent),
            "received_bytes": 16,
            "sent": 1,
            "sent_bytes": 16,
            "egress_dropped": 1,
            "in_flight": 16,
            "next_sequence": 32,
            "oldest_sequence": 32,
        }
    )


# ---------------------------------------------------------------- trace


def RetireTrace(config: NicConfig) -> data.StructLayout:
    """One retired instruction of a core. `pending`: the value (if any) comes later, with a ResultTrace of that thread.
    write: `register` (0..9) gets `value`, otherwise `value` is what a store stores (the second part, where it crosses a
    row of map memory). sampled: the value is one that a program can't compute (clock, random number). address: of the
    memory access, if `memory`. A trap retires nothing; it shows as a Finish with a cause (a call of a map helper that
    traps after its request has shown as pending, and gets no ResultTrace)."""
    return data.StructLayout(
        {
            "valid": 1,
            "thread": range(config.threads),
            "pc": range(config.program_slots),
            "next_pc": range(config.program_slots),
            "pending": 1,
            "write": 1,
            "register": 4,
            "value": 64,
            "sampled": 1,
            "memory": 1,
            "address": 32,
        }
    )


def ResultTrace(config: NicConfig) -> data.StructLayout:
    """The end of an instruction whose retirement was pending."""
    return data.StructLayout(
        {"valid": 1, "thread": range(config.threads), "write": 1, "register": 4, "value": 64}
    )


ENGINE_TRACES = 2
"""Calls that the map engine decides in one clock: one of the serial unit, then a look-up of the finder."""


def SharedTrace(config: NicConfig) -> data.StructLayout:
    """One access that a bank of map memory granted in this clock, or, behind the last bank, one call that the map
    engine decided on a keyed map. (clock, bank) is its serial number: a total order that agrees with every bank, the
    tables and every thread. requester: core number, or `cores` for the host.

    write: bytes of row `row` that the bank writes in this clock, 0 for none (an atomic does so some clocks after its
    grant, and its bank grants nothing until then); byte i of the row comes from byte i % 8 of `data`."""
    return data.StructLayout(
        {
            "valid": 1,
            "requester": range(config.cores + 1),
            "tag": 8,
            "write": addresses.ROW_BYTES,
            "row": range(config.map_bytes // addresses.ROW_BYTES // config.map_banks),
            "data": 64,
        }
    )


def DispatchTrace(config: NicConfig) -> data.StructLayout:
    """A packet begins on a thread: packet number `sequence` of `ingress`, with the program at `pc`."""
    return data.StructLayout(
        {
            "valid": 1,
            "thread": range(config.threads),
            "ingress": range(config.interfaces),
            "sequence": 32,
            "pc": range(config.program_slots),
        }
    )


def FinishTrace(config: NicConfig) -> data.StructLayout:
    """A packet's program ended on a thread."""
    return data.StructLayout({"valid": 1, "thread": range(config.threads), "verdict": 32, "cause": 4})


def ReleaseTrace(config: NicConfig) -> data.StructLayout:
    """A packet leaves the order table: to egress `egress`'s queue if `queued`, otherwise it is gone. action: its XDP
    action as it is counted, whether a program ran or not; cause: why it was aborted, 0 if it was not."""
    return data.StructLayout(
        {
            "valid": 1,
            "ingress": range(config.interfaces),
            "sequence": 32,
            "queued": 1,
            "egress": range(config.interfaces),
            "action": 3,
            "cause": 4,
        }
    )


def RefuseTrace(config: NicConfig) -> data.StructLayout:
    """Frames that ended without being accepted: bit i for ingress i. Frames end in the order they came, so the n-th
    frame of an ingress is known by counting its accepted and refused ones."""
    return data.StructLayout({"refused": config.interfaces, "accepted": config.interfaces})


def EmitTrace(config: NicConfig) -> data.StructLayout:
    """The oldest record of map `index` leaves its ring, or is passed over, in this clock: it has its place in the order
    of SharedTrace, and in one clock nothing else concerns its ring. waiting: some record may still leave, without
    anything that a program does."""
    return data.StructLayout({"valid": 1, "index": range(config.maps), "waiting": 1})


def TracePort(config: NicConfig) -> Signature:
    """All of it, sideways out of the NIC; present where config.trace."""
    per_core = data.ArrayLayout
    return Signature(
        {
            "retire": Out(per_core(RetireTrace(config), config.cores)),
            "result": Out(per_core(ResultTrace(config), config.cores)),
            "dispatch": Out(per_core(DispatchTrace(config), config.cores)),
            "finish": Out(per_core(FinishTrace(config), config.cores)),
            "shared": Out(data.ArrayLayout(SharedTrace(config), config.map_banks + ENGINE_TRACES)),
            "release": Out(ReleaseTrace(config)),
            "refuse": Out(RefuseTrace(config)),
            "emit": Out(EmitTrace(config)),
        }
    )


# ---------------------------------------------------------------- the blocks


def CorePorts(config: NicConfig) -> dict:
    """Members of hdl.core.Core: one barrel core.

    start/finish: a thread's life. A thread that finished is not started again before its Finish was taken.
    budget: instructions a packet may retire. time: nanoseconds, sampled by bpf_ktime_get_ns. random: a new number each
    clock. cpu_base: core number * threads. retired: instructions retired in this clock (0 or 1).
    """
    return {
        "start": In(stream.Signature(Start(config))),
        "finish": Out(stream.Signature(Finish(config))),
        "fetch": Out(ProgramRead(config)),
        "bounds": Out(BoundsPort(config)),
        "local": Out(LocalPort(config)),
        "service": Out(stream.Signature(ServiceRequest(config))),
        "answer": In(stream.Signature(Answer(config))),
        "map": Out(MapPort(config)),
        "engine": Out(EnginePort(config)),
        "budget": In(32),
        "time": In(64),
        "random": In(32),
        "cpu_base": In(8),
        "retired": Out(1),
        "retire_trace": Out(RetireTrace(config)),
        "result_trace": Out(ResultTrace(config)),
    }


def PacketPathPorts(config: NicConfig) -> dict:
    """Members of hdl.packets.PacketPath: everything between the streams and the cores.

    Lists (`.array`) are per core or per interface.
    """
    return {
        "ingress": In(stream.Signature(Beat(INGRESS_USER))).array(config.interfaces),
        "egress": Out(stream.Signature(Beat(EGRESS_USER))).array(config.interfaces),
        "start": Out(stream.Signature(Start(config))).array(config.cores),
        "finish": In(stream.Signature(Finish(config))).array(config.cores),
        "bounds": In(BoundsPort(config)).array(config.cores),
        "local": In(LocalPort(config)).array(config.cores),
        "service": In(stream.Signature(ServiceRequest(config))).array(config.cores),
        "answer": Out(stream.Signature(Answer(config))).array(config.cores),
        "enable": In(1),
        "apart": In(1),  # packets of one flow never run at the same time; takes effect when nothing is in flight
        "control": In(InterfaceControl(config)).array(config.interfaces),
        "status": Out(InterfaceStatus(config)).array(config.interfaces),
        # causes[c] is high in a clock in which a packet was counted as aborted with cause c (one a clock at most: the
        # same clock as its ABORTED event)
        "causes": Out(unsigned(16)),
        "dispatch_trace": Out(DispatchTrace(config)).array(config.cores),
        "finish_trace": Out(FinishTrace(config)).array(config.cores),
        "release_trace": Out(ReleaseTrace(config)),
        "refuse_trace": Out(RefuseTrace(config)),
    }


def MapMemoryPorts(config: NicConfig) -> dict:
    """Members of hdl.maps.MapMemory: banks behind a crossbar. Requester number `cores` is the host."""
    return {
        "port": In(MapPort(config)).array(config.cores + 1),
        "table": In(TablePort(config)),
        "rows": In(RowPort(config)),
        "shared_trace": Out(SharedTrace(config)).array(config.map_banks),
    }


def MapEnginePorts(config: NicConfig) -> dict:
    """Members of hdl.maps.MapEngine.

    ended, ended_thread : of each core: in this clock a thread's program ends. frames : records for the host's stream.
    """
    return {
        "ended": In(config.cores),
        "ended_thread": In(range(config.threads)).array(config.cores),
        "frames": Out(stream.Signature(Beat(EGRESS_USER))),
        "emit_trace": Out(EmitTrace(config)),
        "port": In(EnginePort(config)).array(config.cores),
        "write": In(DescriptorWrite(config)),
        "host": In(MapHostPort(config)),
        "table": Out(TablePort(config)),
        "rows": Out(RowPort(config)),
        "secret": In(HashSecret(config)),
        "shared_trace": Out(SharedTrace(config)).array(ENGINE_TRACES),
    }


def ProgramStorePorts(config: NicConfig) -> dict:
    """Members of hdl.programs.ProgramStore: one core's copy."""
    return {"read": In(ProgramRead(config)), "write": In(ProgramWrite(config))}


def ControlPorts(config: NicConfig) -> dict:
    """Members of hdl.control.Control: AXI4-Lite, the registers and the counters.

    AXI4-Lite signals carry their AXI names; wstrb other than 0b1111 and unmapped addresses answer SLVERR (2) and change
    nothing. A write to MAP_DATA or a read of it waits for map memory. advance: nanoseconds to add to the time in this
    clock besides CLOCK_NS (simulation skips idle spans with it; boards tie it to 0).
    """
    return {
        "awvalid": In(1), "awready": Out(1), "awaddr": In(12), "awprot": In(3),
        "wvalid": In(1), "wready": Out(1), "wdata": In(32), "wstrb": In(4),
        "bvalid": Out(1), "bready": In(1), "bresp": Out(2),
        "arvalid": In(1), "arready": Out(1), "araddr": In(12), "arprot": In(3),
        "rvalid": Out(1), "rready": In(1), "rdata": Out(32), "rresp": Out(2),
        "map": Out(MapPort(config)),
        "descriptor": Out(DescriptorWrite(config)),
        "secret": Out(HashSecret(config)),
        "keyed": Out(MapHostPort(config)),
        "program": Out(ProgramWrite(config)),
        "enable": Out(1),
        "apart": Out(1),
        "interface": Out(InterfaceControl(config)).array(config.interfaces),
        "status": In(InterfaceStatus(config)).array(config.interfaces),
        "causes": In(16),
        "retired": In(config.cores),
        "budget": Out(32),
        "time": Out(64),
        "random": Out(32),
        "advance": In(64),
    }
