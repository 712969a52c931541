"""HASH: which key has which place (kernel/bpf/hashtab.c). The table lies in map memory, as spec/tables.py draws it."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapDescriptor, TablePort
from bpfnic.hdl.maps.keyhash import FINAL_ROUNDS, KeyHash
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.maps import Errno, UpdateFlag

TABLE_LATENCY = 3  # clocks from a grant to the word
_WORDS = MAX_KEY_BYTES // 8
_STATE_WORDS = tables.STATE_BYTES // 8


class TableOperation(Enum, shape=3):
    """What is done with a key. UPDATE: a program's, up to the place that its value is copied to, as RESERVE, but only
    if it isn't an error; INSERT: its end. POP: a DELETE whose place is reserved, for its value is to be read."""

    LOOKUP = 0
    UPDATE = 1
    INSERT = 2
    DELETE = 3
    RESERVE = 4
    FIRST = 5
    NEXT = 6
    POP = 7


def TableCall(config: NicConfig) -> data.StructLayout:
    """Engine -> unit. cpu: whose key it is and whose reservation; the number behind the last is the host's. illegal:
    flags that no update takes."""
    return data.StructLayout(
        {
            "operation": TableOperation,
            "cpu": range(config.cores * config.threads + 1),
            "host": 1,
            "flags": 2,
            "illegal": 1,
        }
    )


class HashUnit(Component):
    """One operation after the other; what it says of it happens in the clock of `decides`.

    Members
    -------
    word_write, word_cpu, word_number, word : 8 bytes of a CPU's key. It stays until the CPU's next one.
    host_word, host_write, host_data, host_key : the host's key, 4 bytes at a time, read in the same clock.
    start : begins `call`, on the map that `descriptor` says until it is `done` and `taken`.
    decides : the operation takes effect: of all before it sees everything, and of those after it nothing.
    done : up to the clock in which it is `taken`; `status`, an error number or 0; if `found` then `value` is the byte
        offset of a value in map memory. They stay until the next start. A program's look-up of a key that is not there
        is no error.
    table : interfaces.TablePort.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        offset = range(config.map_bytes)
        super().__init__(
            {
                "word_write": In(1),
                "word_cpu": In(range(config.cores * config.threads)),
                "word_number": In(range(_WORDS)),
                "word": In(64),
                "host_word": In(range(2 * _WORDS)),
                "host_write": In(1),
                "host_data": In(32),
                "host_key": Out(32),
                "start": In(1),
                "call": In(TableCall(config)),
                "descriptor": In(MapDescriptor(config)),
                "decides": Out(1),
                "done": Out(1),
                "taken": In(1),
                "found": Out(1),
                "status": Out(6),
                "value": Out(offset),
                "table": Out(TablePort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, descriptor, table = self.config, self.descriptor, self.table
        offset = range(config.map_bytes)
        call = Signal(TableCall(config), reset_less=True)
        last_word = Signal(range(_WORDS))  # of the map's key
        m.d.comb += last_word.eq((descriptor.key_size - 1)[3:])
        header = tables.header_bytes(config.cores * config.threads)

        # Keys of all CPUs; the host's; and the one at hand.
        m.submodules.keys = keys = SimpleRam(
            width=64, depth=_WORDS << len(self.word_cpu), target=config.target
        )
        m.d.comb += [
            keys.write.enable.eq(self.word_write),
            keys.write.address.eq(Cat(self.word_number, self.word_cpu)),
            keys.write.data.eq(self.word),
        ]
        m.submodules.host_keys = host_keys = memory.Memory(shape=32, depth=2 * _WORDS, init=[])
        m.submodules.key = key = memory.Memory(shape=64, depth=_WORDS, init=[])
        host_write, host_read = host_keys.write_port(), host_keys.read_port(domain="comb")
        host_shown = host_keys.read_port(domain="comb")
        key_write, key_read = key.write_port(granularity=32), key.read_port(domain="comb")
        m.d.comb += [
            host_write.addr.eq(self.host_word),
            host_write.data.eq(self.host_data),
            host_write.en.eq(self.host_write),
            host_shown.addr.eq(self.host_word),
            self.host_key.eq(host_shown.data),
        ]

        # Words of the table: `issued` requests of a burst have been granted, `got` have been answered.
        base, issued, got = Signal(table.address.shape()), Signal(range(_WORDS + 2)), Signal(range(_WORDS + 2))
        coming = Signal(TABLE_LATENCY)
        came, word = coming[-1], table.word
        m.d.sync += coming.eq(Cat(table.grant & (table.write == 0), coming))
        with m.If(table.grant):
            m.d.sync += issued.eq(issued + 1)
        with m.If(came):
            m.d.sync += got.eq(got + 1)
        m.d.comb += table.address.eq(base + issued)

        def burst(address, state: str) -> None:
            """From the next clock on: words from byte `address`, in `state`."""
            m.d.sync += [base.eq(address[3:]), issued.eq(0), got.eq(0)]
            m.next = state

        def read(count) -> None:
            m.d.comb += table.request.eq(issued < count)

        def write(values, halves=0b11) -> None:
            m.d.comb += [table.request.eq(1), table.write.eq(halves), table.data.eq(values)]

        # What is known of the table and of the key.
        fresh_node, fresh_value, oldest, newest, reserved = (
            Signal(offset, name=name, reset_less=True)
            for name in ("fresh_node", "fresh_value", "oldest", "newest", "reserved")
        )
        count, fresh = (Signal(range(config.map_bytes + 1), name=name, reset_less=True) for name in ("count", "fresh"))
        bucket = Signal(descriptor.buckets.shape(), reset_less=True)
        node, next_node, target, link_at = (
            Signal(offset, name=name, reset_less=True) for name in ("node", "next_node", "target", "link_at")
        )
        here, differs = Signal(reset_less=True), Signal(reset_less=True)  # the key is there: `node`
        steps = Signal(range(config.map_bytes), reset_less=True)
        value = Signal(offset, reset_less=True)
        state_at, head_at, reservation_at = Signal(offset), Signal(offset), Signal(offset)
        m.d.comb += [
            state_at.eq(descriptor.table),
            head_at.eq(descriptor.table + header + (bucket << 2)),
            reservation_at.eq(descriptor.table + tables.STATE_BYTES + (call.cpu << 2)),
        ]

        def finish(*, status=0, found=0) -> None:
            m.d.sync += [self.status.eq(status), self.found.eq(found)]
            with m.If(found):
                m.d.sync += self.value.eq(value)
            m.next = "DONE"

        illegal, refused = Signal(), Signal(6)
        m.d.comb += illegal.eq(call.illegal | (call.flags > UpdateFlag.EXIST))
        with m.If(illegal):
            m.d.comb += refused.eq(Errno.EINVAL)
        with m.Elif(here):
            m.d.comb += refused.eq(Mux(call.flags == UpdateFlag.NOEXIST, Errno.EEXIST, 0))
        with m.Elif(call.flags == UpdateFlag.EXIST):
            m.d.comb += refused.eq(Errno.ENOENT)
        with m.Elif(count >= descriptor.entries):
            m.d.comb += refused.eq(Errno.E2BIG)

        m.submodules.hash = hasher = KeyHash()
        half = Signal(range(2 * _WORDS + 1))
        last_half = Cat(1, last_word)
        sends = Signal()
        sent = Signal(READ_LATENCY)
        halves = [Signal(range(2 * _WORDS), name=f"half{i}", reset_less=True) for i in range(READ_LATENCY)]
        arrives, at = sent[-1], halves[-1]
        m.d.sync += sent.eq(Cat(sends, sent))
        m.d.sync += [after.eq(before) for after, before in zip(halves, [half, *halves], strict=False)]
        behind = Cat((Cat(Const(byte, 2), at) >= descriptor.key_size).replicate(8) for byte in range(4))
        key_half = Mux(call.host, host_read.data & ~behind, keys.read.data.word_select(at[0], 32))
        m.d.comb += [
            keys.read.address.eq(Cat(half[1:4], call.cpu)),
            host_read.addr.eq(at),
            key_write.en.eq(Mux(arrives, 1 << at[0], 0)),
            key_write.addr.eq(at[1:]),
            key_write.data.eq(key_half.replicate(2)),
            hasher.seed.eq(descriptor.seed),
            hasher.start.eq(self.start),
            hasher.add.eq(arrives),
            hasher.word.eq(key_half),
        ]
        turns = Signal(range(FINAL_ROUNDS))
        operation = call.operation

        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [call.eq(self.call), half.eq(0), turns.eq(0), here.eq(0), steps.eq(0)]
                    m.next = "KEY"
            with m.State("KEY"):  # 4 bytes a clock
                m.d.comb += sends.eq(half <= last_half)
                with m.If(sends):
                    m.d.sync += half.eq(half + 1)
                with m.If(arrives & (at == last_half)):
                    m.next = "HASH"
            with m.State("HASH"):
                m.d.comb += [hasher.end.eq(1), hasher.first_end.eq(turns == 0)]
                m.d.sync += turns.eq(turns + 1)
                with m.If(turns == FINAL_ROUNDS - 1):
                    m.next = "BUCKET"
            with m.State("BUCKET"):
                m.d.sync += bucket.eq(Mux(operation == TableOperation.FIRST, 0, hasher.hash & descriptor.buckets))
                with m.Switch(operation):
                    with m.Case(TableOperation.FIRST):
                        m.next = "SCAN"
                    with m.Case(TableOperation.LOOKUP, TableOperation.NEXT):
                        m.next = "CHAIN"
                    with m.Default():
                        burst(state_at, "STATE")

            # The numbers of the table, and the reservation.
            with m.State("STATE"):
                read(_STATE_WORDS)
                with m.If(came):
                    with m.Switch(got):
                        with m.Case(0):
                            m.d.sync += [fresh_node.eq(word[:32]), fresh_value.eq(word[32:])]
                        with m.Case(1):
                            m.d.sync += [oldest.eq(word[:32]), newest.eq(word[32:])]
                        with m.Case(2):
                            m.d.sync += [count.eq(word[:32]), fresh.eq(word[32:])]
                            burst(reservation_at, "RESERVATION")
            with m.State("RESERVATION"):
                read(1)
                with m.If(came):
                    m.d.sync += reserved.eq(word.word_select(reservation_at[2], 32))
                    m.next = "CHAIN"
                    with m.If(operation == TableOperation.RESERVE):
                        m.next = "TAKE"

            # The bucket's chain.
            with m.State("CHAIN"):
                m.d.sync += link_at.eq(head_at)
                burst(head_at, "HEAD")
            with m.State("HEAD"):
                read(1)
                with m.If(came):
                    m.d.sync += node.eq(word.word_select(link_at[2], 32))
                    m.next = "VISIT"
            with m.State("VISIT"):  # no chain is longer than the map has entries, unless a program has written to it
                m.d.sync += differs.eq(0)
                m.next = "DECIDE"
                with m.If(node.any() & (steps != descriptor.entries)):
                    burst(node, "COMPARE")
            with m.State("COMPARE"):
                read(last_word + 2)
                m.d.comb += key_read.addr.eq(got - 1)
                with m.If(came):
                    with m.If(got == 0):
                        m.d.sync += [next_node.eq(word[:32]), value.eq(word[32:])]
                    with m.Elif(word != key_read.data):
                        m.d.sync += differs.eq(1)
                    with m.If(got == last_word + 1):
                        m.next = "DECIDE"
                        with m.If(differs | (word != key_read.data)):
                            m.d.sync += [link_at.eq(node), node.eq(next_node), steps.eq(steps + 1)]
                            m.next = "VISIT"
                        with m.Else():
                            m.d.sync += here.eq(1)

            with m.State("DECIDE"):
                m.d.comb += self.decides.eq(1)
                with m.Switch(operation):
                    with m.Case(TableOperation.LOOKUP):
                        finish(status=Mux(here | ~call.host, 0, Errno.ENOENT), found=here)
                    with m.Case(TableOperation.UPDATE):
                        finish(status=refused)
                        with m.If(refused == 0):
                            m.next = "TAKE"
                    with m.Case(TableOperation.INSERT):
                        m.d.sync += target.eq(reserved)
                        with m.If(reserved == 0):
                            finish(status=Errno.EINVAL)
                        with m.Elif(refused.any()):
                            finish(status=refused)
                        with m.Else():
                            burst(reserved + 8, "WRITE_KEY")
                    with m.Case(TableOperation.DELETE, TableOperation.POP):
                        m.d.sync += [target.eq(next_node), count.eq(count - 1)]
                        finish(status=Errno.ENOENT)
                        with m.If(here):
                            burst(link_at, "LINK")
                    with m.Default():  # NEXT
                        m.d.sync += [node.eq(next_node), bucket.eq(Mux(here, bucket + 1, 0))]
                        with m.If(here & next_node.any()):
                            burst(next_node, "READ_KEY")
                        with m.Elif(here & (bucket == descriptor.buckets)):
                            finish(status=Errno.ENOENT)
                        with m.Else():
                            m.next = "SCAN"

            # A place for a new value: `target`.
            with m.State("TAKE"):
                with m.If(reserved.any()):
                    m.d.sync += target.eq(reserved)
                    burst(reserved, "RECALL")
                with m.Elif(fresh.any()):
                    m.d.sync += [
                        target.eq(fresh_node),
                        value.eq(fresh_value),
                        fresh_node.eq(fresh_node + ((last_word + 2) << 3)),
                        fresh_value.eq(fresh_value + descriptor.stride),
                        fresh.eq(fresh - 1),
                    ]
                    burst(fresh_node, "FRESH")
                with m.Elif(oldest.any()):
                    m.d.sync += target.eq(oldest)
                    burst(oldest, "REUSE")
                with m.Else():
                    finish(status=Errno.E2BIG)
            with m.State("RECALL"):
                read(1)
                with m.If(came):
                    m.d.sync += value.eq(word[32:])
                    m.next = "FOUND"
            with m.State("FRESH"):
                write(Cat(Const(0, 32), _number(value)))
                with m.If(table.grant):
                    burst(reservation_at, "RESERVE")
            with m.State("REUSE"):
                read(1)
                with m.If(came):
                    m.d.sync += [value.eq(word[32:]), oldest.eq(Mux(oldest == newest, 0, word[:32]))]
                    burst(reservation_at, "RESERVE")
            with m.State("RESERVE"):
                pops, inserts = operation == TableOperation.POP, operation == TableOperation.INSERT
                mine = Mux(inserts, 0, Mux(pops, node, target))
                write(_number(mine).replicate(2), 1 << reservation_at[2])
                with m.If(table.grant):
                    with m.If(pops & reserved.any()):
                        m.d.sync += node.eq(reserved)
                        m.next = "FREE"
                    with m.Elif(inserts & here):
                        m.next = "FREE"
                    with m.Else():
                        burst(state_at, "SAVE")

            # The key gets its new place, or none.
            with m.State("WRITE_KEY"):
                m.d.comb += key_read.addr.eq(issued)
                write(key_read.data)
                with m.If(table.grant & (issued == last_word)):
                    burst(target, "WRITE_LINK")
            with m.State("WRITE_LINK"):
                write(_number(Mux(here, next_node, 0)), 0b01)
                with m.If(table.grant):
                    burst(link_at, "LINK")
            with m.State("LINK"):
                write(_number(target).replicate(2), 1 << link_at[2])
                with m.If(table.grant):
                    m.next = "FREE"
                    with m.If(operation == TableOperation.INSERT):
                        m.d.sync += count.eq(count + ~here)
                    with m.If(operation != TableOperation.DELETE):
                        burst(reservation_at, "RESERVE")

            # `node` is used again last.
            with m.State("FREE"):
                m.d.sync += newest.eq(node)
                with m.If(oldest.any()):
                    burst(newest, "CHAIN_FREE")
                with m.Else():
                    m.d.sync += oldest.eq(node)
                    burst(state_at, "SAVE")
            with m.State("CHAIN_FREE"):
                write(_number(node), 0b01)
                with m.If(table.grant):
                    burst(state_at, "SAVE")
            with m.State("SAVE"):
                with m.Switch(issued):
                    for i, (low, high) in enumerate(((fresh_node, fresh_value), (oldest, newest), (count, fresh))):
                        with m.Case(i):
                            write(Cat(_number(low), _number(high)))
                with m.If(table.grant & (issued == _STATE_WORDS - 1)):
                    finish()
                    with m.Switch(operation):
                        with m.Case(TableOperation.UPDATE, TableOperation.RESERVE, TableOperation.POP):
                            m.next = "FOUND"
            with m.State("FOUND"):
                finish(found=1)

            # A walk: the next key becomes the host's.
            with m.State("SCAN"):
                burst(head_at, "SCANNED")
            with m.State("SCANNED"):
                read(1)
                with m.If(came):
                    m.d.sync += [node.eq(word.word_select(head_at[2], 32)), bucket.eq(bucket + 1)]
                    m.next = "SCAN"
                    with m.If(word.word_select(head_at[2], 32).any()):
                        m.next = "KEY_FOUND"
                    with m.Elif(bucket == descriptor.buckets):
                        finish(status=Errno.ENOENT)
            with m.State("KEY_FOUND"):
                burst(node, "READ_KEY")
            with m.State("READ_KEY"):
                m.d.sync += half.eq(0)
                read(last_word + 2)
                key_came = came & (got != 0)
                m.d.comb += [
                    key_write.en.eq(key_came.replicate(2)),
                    key_write.addr.eq(got - 1),
                    key_write.data.eq(word),
                ]
                with m.If(came & (got == 0)):
                    m.d.sync += value.eq(word[32:])
                with m.If(came & (got == last_word + 1)):
                    m.next = "SHOW_KEY"
            with m.State("SHOW_KEY"):
                shown = key_read.data.word_select(half[0], 32)
                m.d.sync += half.eq(half + 1)
                m.d.comb += [
                    key_read.addr.eq(half[1:]),
                    host_write.en.eq(1),
                    host_write.addr.eq(half),
                    host_write.data.eq(Mux(half <= last_half, shown, 0)),
                ]
                with m.If(half == 2 * _WORDS - 1):
                    finish(found=1)

            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.taken):
                    m.next = "IDLE"
        return m


def _number(value) -> Value:
    """In 32 bits."""
    return Cat(value, Const(0, 32))[:32]
