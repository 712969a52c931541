"""What is said to map memory and to the map engine, and within that: layouts, streams and signatures, as in
hdl/interfaces.py."""

from amaranth import Value
from amaranth.lib import data, stream
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.spec import addresses, tables
from bpfnic.spec.addresses import MAX_KEY_BYTES

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
    WALK = 17  # spec.helpers.MAP_WALK


LOCK = range(4096)
"""As in register MAP_LOCK: the byte offset of a value's spin lock, plus 1; 0 where it has none. Bit 0 says which."""


def EngineWord(config: NicConfig) -> data.StructLayout:
    """Core -> engine: arguments of one call, word by word; a thread has one call under way at most.

    - LOOKUP, DELETE: the key, 8 bytes a word, the first bytes first (`number` counts words; what of the last one lies
      behind the key may hold anything). UPDATE: its flags (r4), then the key.
    - TAIL, REDIRECT: the index (r3; r2).
    - PUSH: its flags (r3). POP, PEEK: a word that may be anything.
    - WALK: where it is, and where the key goes (r2).
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
    """Serial unit -> front: word `number` of the key in `slot`. `request` waits for `grant` (same clock; it may be high
    without a request); `word` is there 2 clocks after it (a block RAM's latency)."""
    return Signature(
        {
            "request": Out(1),
            "slot": Out(range(key_slots(config))),
            "number": Out(range(MAX_KEY_BYTES // 8)),
            "grant": In(1),
            "word": In(64),
        }
    )


FIND_CLOCKS = 2
"""Clocks from a key's last word to the first in which it may be searched for: its hash is known when it is needed."""


def Find(config: NicConfig) -> data.StructLayout:
    """Serial unit -> finder, taken at once: where is the key in `slot`? Its last word was taken FIND_CLOCKS clocks ago
    or earlier. For an LPM_TRIE `length` is the length of the key's prefix: of a stored key the bits behind it don't
    count."""
    return data.StructLayout({"valid": 1, "slot": range(key_slots(config)), "length": 9})


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
    """Serial unit -> front and finder. SCRATCH_KEYS finds are under way at most, and while there are any,
    `descriptor` stays as it is. Cores' words wait while key.valid is high, so it hangs on registers and little else.
    hold: no program's look-up begins; idle: and none is under way (it holds from the clock in which it is high until
    `hold` goes down)."""
    return Signature(
        {
            "key": Out(stream.Signature(KeyWord(config))),
            "read": Out(KeyReadPort(config)),
            "find": Out(Find(config)),
            "found": In(Found(config)),
            "descriptor": Out(MapDescriptor(config)),
            "hold": Out(1),
            "idle": In(1),
        }
    )


def bank_bit(config: NicConfig, row: Value) -> Value:
    """A bit for each bank of map memory: that of the one where row `row` lies."""
    return (1 << row[: exact_log2(config.map_banks)])[: config.map_banks]


def RowPort(config: NicConfig) -> Signature:
    """Map engine -> map memory: reads 16-byte row `row`. `request`, its bank_bit, waits for `grant` (same clock);
    `data` is the row 3 clocks after it."""
    return Signature(
        {
            "request": Out(config.map_banks),
            "row": Out(range(config.map_bytes // addresses.ROW_BYTES)),
            "grant": In(1),
            "data": In(8 * addresses.ROW_BYTES),
        }
    )


def TablePort(config: NicConfig) -> Signature:
    """Map engine -> map memory: an access to 8 bytes, word `address`. `request`, its row's bank_bit, waits for `grant`
    (same clock). `write`: the halves that are written, the lower one in bit 0; `word`: what was read, 3 clocks after
    the grant."""
    return Signature(
        {
            "request": Out(config.map_banks),
            "address": Out(range(config.map_bytes // 8)),
            "write": Out(2),
            "data": Out(64),
            "grant": In(1),
            "word": In(64),
        }
    )


def TurnPort(config: NicConfig) -> Signature:
    """A unit of the map engine -> its turn on a TablePort. `request`, a bit, waits for `grant` (same clock; it may be
    high without a request), which takes the access. The last unit's accesses are made in the order in which they were
    taken, and so are those of all others. came: `word` is what the unit's next read said, 4 clocks after its grant or
    later; coming: it comes in 2 clocks. pending: an access that was taken is still to be made."""
    members = dict(TablePort(config).members)
    return Signature(members | {"request": Out(1), "coming": In(1), "came": In(1), "pending": In(1)})


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
