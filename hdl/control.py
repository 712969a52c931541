"""AXI4-Lite, and what stands behind each register."""

from functools import reduce

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.counters import COUNTERS, READ_CLOCKS, Counters
from bpfnic.hdl.interfaces import ControlPorts
from bpfnic.hdl.mapinterfaces import MapOperation
from bpfnic.hdl.registers import RegisterBank
from bpfnic.spec import engine
from bpfnic.spec.registers import (
    BY_NAME,
    CHAIN_BIT,
    CHAIN_WORDS,
    CONTROL_ENABLE,
    CONTROL_FLOWS_APART,
    ENTRY_NEXT_BIT,
    ENTRY_TYPE_BIT,
    ENTRY_TYPE_MASK,
    ENTRY_VALID,
    MAGIC,
    MODE_EGRESS_WAITS,
    MODE_INGRESS_WAITS,
    STATUS_DONE_BIT,
    VERSION,
)

_OKAY, _SLVERR = 0, 2
_BARREL = 0  # register ENGINE
_SEED = 0x2545_F491  # any but 0, from which a shift register does not move


class Control(Component):
    """Members: interfaces.ControlPorts. One access at a time, writes first.

    A write has bvalid 3 clocks after both its valids; one to SNAPSHOT when the counters are taken, one to MAP_DATA when
    map memory has answered, one to MAP_COMMAND when the map engine has (MAP_DATA and MAP_COMMAND that do nothing, as
    spec.registers says, are like any other). A read has rvalid READ_CLOCKS + 4 clocks after arvalid, one of MAP_DATA
    when map memory has answered.
    SLVERR: no register at the address, a write to one that is read only, wstrb other than 0b1111.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        self.counters = Counters(config)
        super().__init__(ControlPorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        bank = RegisterBank(m)
        strobes = Signal(4, reset_less=True)
        m.submodules.counters = counters = self.counters
        map_read = Signal(32, reset_less=True)
        astray = Signal()  # a command failed, and MAP_ADDRESS was not set since

        self._describe(bank)
        self._clock_and_random(m, bank)
        self._programs(m, bank)
        map_answered = Signal()
        map_written, map_was_read, offset, takes = self._maps(m, bank, map_read, map_answered, astray)
        commanded, answered = self._keyed(m, bank, astray, offset)
        self._interfaces(m, bank)
        snapshot = bank.command("SNAPSHOT")
        (control,) = bank.stored("CONTROL", CONTROL_ENABLE | CONTROL_FLOWS_APART)
        (budget,) = bank.stored("BUDGET")
        m.d.comb += [
            self.enable.eq((control & CONTROL_ENABLE).any() & counters.ready),  # outcomes come from then on
            self.apart.eq((control & CONTROL_FLOWS_APART).any()),
            self.budget.eq(budget),
        ]
        for register in COUNTERS:
            bank.shown(register.name, [counters.value] * register.count)
        m.d.comb += [mine.eq(theirs) for mine, theirs in zip(counters.status, self.status, strict=True)]
        m.d.comb += [counters.causes.eq(self.causes), counters.retired.eq(self.retired)]
        m.d.comb += counters.address.eq(bank.address[2:])
        bank.build()

        writing, timer = Signal(), Signal(range(READ_CLOCKS + 1))
        allowed = Mux(writing, bank.writable & strobes.all(), bank.readable)
        response = Mux(allowed, _OKAY, _SLVERR)
        with m.If(self.map.request.ready):
            m.d.sync += self.map.request.valid.eq(0)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += timer.eq(0)
                with m.If(self.awvalid & self.wvalid):
                    m.d.comb += [self.awready.eq(1), self.wready.eq(1)]
                    m.d.sync += [bank.address.eq(self.awaddr), bank.data.eq(self.wdata)]
                    m.d.sync += [strobes.eq(self.wstrb), writing.eq(1)]
                    m.next = "DECODE"
                with m.Elif(self.arvalid):
                    m.d.comb += self.arready.eq(1)
                    m.d.sync += [bank.address.eq(self.araddr), writing.eq(0)]
                    m.next = "DECODE"
            with m.State("DECODE"):
                m.d.comb += bank.decode.eq(1)
                m.next = "READ"
                with m.If(writing):
                    m.next = "WRITE"
            with m.State("WRITE"):
                m.d.comb += bank.write.eq(allowed)
                m.d.sync += self.bresp.eq(response)
                m.next = "WRITTEN"
                with m.If(snapshot):
                    m.next = "SNAPSHOT"
                with m.If(map_written):
                    m.d.sync += self.map.request.valid.eq(1)
                    m.next = "MAP"
                with m.If(commanded):
                    m.next = "COMMAND"
            with m.State("READ"):
                m.d.sync += timer.eq(timer + 1)
                m.d.comb += bank.read.eq(allowed & (timer == 0))
                with m.If(map_was_read):
                    m.d.sync += self.map.request.valid.eq(1)
                    m.next = "MAP"
                with m.Elif(timer == READ_CLOCKS):
                    m.next = "VALUE"
            with m.State("VALUE"):
                m.d.comb += bank.show.eq(1)
                m.d.sync += self.rresp.eq(response)
                m.next = "DONE"
            with m.State("SNAPSHOT"):
                m.d.comb += counters.snapshot.eq(1)
                with m.If(counters.taken):
                    m.next = "WRITTEN"
            with m.State("MAP"):
                with m.If(map_answered):
                    m.next = "VALUE"
                    with m.If(writing):
                        m.next = "WRITTEN"
            with m.State("COMMAND"):
                m.d.comb += self.keyed.command.eq(~answered)
                with m.If(answered):
                    m.next = "WRITTEN"
            with m.State("WRITTEN"):
                m.d.comb += self.bvalid.eq(1)
                with m.If(self.bready):
                    m.next = "IDLE"
            with m.State("DONE"):
                m.d.comb += self.rvalid.eq(1)
                with m.If(self.rready):
                    m.next = "IDLE"
        m.d.comb += self.rdata.eq(bank.value)
        read = Mux(takes, MapOperation.XCHG, MapOperation.LOAD)
        m.d.comb += self.map.request.payload.operation.eq(Mux(writing, MapOperation.STORE, read))
        m.d.comb += self.map.request.payload.data.eq(Mux(writing, bank.data, takes))
        return m

    def _describe(self, bank: RegisterBank) -> None:
        config = self.config
        values = {
            "MAGIC": MAGIC,
            "VERSION": VERSION,
            "ENGINE": _BARREL,
            "CORES": config.cores,
            "THREADS": config.threads,
            "PROGRAM_SLOTS": config.program_slots,
            "PACKET_BUFFERS": config.packet_buffers,
            "BUFFER_BYTES": config.buffer_bytes,
            "MAP_BYTES": config.map_bytes,
            "MAPS": config.maps,
            "PORTS": config.ports,
            "GROUPS": engine.group_bits(engine.GROUPS),
            "MAP_TYPES": engine.bit_set(config.map_types),
            "HELPERS": engine.bit_set(config.helpers),
            "PROGRAM_TYPES": engine.bit_set(engine.PROGRAM_TYPES),
        }
        for name, value in values.items():
            bank.constant(name, value)

    def _clock_and_random(self, m: Module, bank: RegisterBank) -> None:
        (clock_ns,) = bank.stored("CLOCK_NS", reset=self.config.clock_ns)
        low_written, sample = Signal(32, reset_less=True), Signal(64, reset_less=True)
        step = Signal(64)
        written, was_read = bank.live("TIME", [sample[:32], sample[32:]])
        m.d.sync += [step.eq(self.advance + clock_ns), self.time.eq(self.time + step)]
        with m.If(written[0]):
            m.d.sync += low_written.eq(bank.data)
        with m.If(written[1]):
            m.d.sync += self.time.eq(Cat(low_written, bank.data))
        with m.If(was_read[0]):
            m.d.sync += sample.eq(self.time)

        # Marsaglia's xorshift, 32 bits.
        state = Signal(32, init=_SEED)
        shifted = reduce(lambda x, by: x ^ ((x << by)[:32] if by > 0 else x >> -by), (13, -17, 5), state)
        m.d.comb += self.random.eq(state)
        m.d.sync += state.eq(shifted)
        with m.If(bank.command("RANDOM_SEED")):
            m.d.sync += state.eq(Mux(bank.data == 0, _SEED, bank.data))

    def _programs(self, m: Module, bank: RegisterBank) -> None:
        (half,) = bank.stored("PROGRAM_ADDRESS", 2 * self.config.program_slots - 1)
        words = self.program.read_data.word_select(half[0], 32)
        (written,), (was_read,) = bank.live("PROGRAM_DATA", [value := Signal(32, reset_less=True)])
        lower = Signal(32, reset_less=True)
        with m.If(was_read):  # at least two clocks after the address moved, so that the store's answer is there
            m.d.sync += value.eq(words)
        with m.If(written & ~half[0]):
            m.d.sync += lower.eq(bank.data)
        with m.If(written | was_read):
            m.d.sync += half.eq((half + 1) & 2 * self.config.program_slots - 1)
        m.d.comb += [
            self.program.enable.eq(written & half[0]),
            self.program.slot.eq(half[1:]),
            self.program.data.eq(Cat(lower, bank.data)),
        ]

    def _maps(self, m: Module, bank: RegisterBank, map_read: Signal, answered: Signal, astray: Signal):
        """Returns the strobes of a write and a read of MAP_DATA that go to map memory, MAP_ADDRESS, and whether what is
        read becomes 1 (MAP_WIDTH)."""
        config = self.config
        (offset,), (width,) = bank.stored("MAP_ADDRESS", config.map_bytes - 1), bank.stored("MAP_WIDTH", 0b111)
        with m.If(bank.write_of("MAP_ADDRESS")):
            m.d.sync += astray.eq(0)
        (written,), (was_read,) = bank.live("MAP_DATA", [Mux(astray, 0, map_read)])
        size = Signal(3)
        m.d.comb += size.eq(Mux(width[1], 4, Mux(width[0], 2, 1)))
        m.d.comb += self.map.answer.ready.eq(1)
        m.d.sync += answered.eq(self.map.answer.valid)
        with m.If(self.map.answer.valid):
            m.d.sync += map_read.eq(self.map.answer.payload.data)
        with m.If(answered):
            m.d.sync += offset.eq((offset + size) & config.map_bytes - 1)
        m.d.comb += [
            self.map.request.payload.address.eq(Cat(offset[:2] & ~(size - 1)[:2], offset[2:])),
            self.map.request.payload.bytes.eq(size),
        ]

        descriptor = self.descriptor.descriptor
        for name in ("type", "base", "entries", "stride", "value_size", "cpu_stride", "key_size", "table", "buckets",
                     "links", "keys", "order", "lock"):
            field = getattr(descriptor, name)
            (stored,) = bank.stored(f"MAP_{name.upper()}", (1 << len(field)) - 1)
            m.d.comb += field.eq(stored)
        m.d.comb += [
            self.secret.write.eq(bank.command("HASH_SECRET")),
            self.secret.data.eq(bank.data),
            self.rss_key.enable.eq(bank.command("RSS_KEY")),
            self.rss_key.index.eq((bank.address - BY_NAME["RSS_KEY"].offset)[2:]),
            self.rss_key.data.eq(bank.data),
            self.descriptor.enable.eq(bank.command("MAP_COMMIT") & (bank.data < config.maps)),
            self.descriptor.index.eq(bank.data),
        ]
        return written & ~astray, was_read & ~astray, offset, width[2]

    def _keyed(self, m: Module, bank: RegisterBank, astray: Signal, offset: Signal) -> tuple[Value, Value]:
        """Returns the strobe of a write to MAP_COMMAND that is to be done, and whether the engine's answer is here."""
        keyed = self.keyed
        key = Signal(32, reset_less=True)
        written, was_read = bank.live("MAP_KEY", [key] * BY_NAME["MAP_KEY"].count)
        status, done = Signal.like(keyed.status), Signal(32 - STATUS_DONE_BIT)
        shown = Signal(32, reset_less=True)
        bank.shown("MAP_STATUS", [shown])
        with m.If(bank.read_of("MAP_STATUS")):
            m.d.sync += [shown.eq(Cat(status, Const(0, STATUS_DONE_BIT - len(status)), done)), status.eq(0), done.eq(0)]
        m.d.comb += [
            keyed.key_word.eq((bank.address - BY_NAME["MAP_KEY"].offset)[2:]),
            keyed.key_write.eq(Cat(written).any()),
            keyed.key_data.eq(bank.data),
            Cat(keyed.index, keyed.operation).eq(bank.data),
            keyed.flags.eq(bank.data[16:]),
        ]
        with m.If(Cat(was_read).any()):
            m.d.sync += key.eq(keyed.key)
        # The engine's answer comes late in its clock.
        answered, found = Signal(), Signal(reset_less=True)
        failed, value = Signal.like(keyed.status, reset_less=True), Signal.like(keyed.value, reset_less=True)
        m.d.sync += [answered.eq(keyed.done), found.eq(keyed.found), failed.eq(keyed.status), value.eq(keyed.value)]
        with m.If(answered):
            m.d.sync += [status.eq(failed), done.eq(done + (failed == 0))]
            with m.If(failed.any()):
                m.d.sync += astray.eq(1)
            with m.Elif(found):
                m.d.sync += [offset.eq(value), astray.eq(0)]
        return bank.command("MAP_COMMAND") & (status == 0), answered

    def _interfaces(self, m: Module, bank: RegisterBank) -> None:
        count = self.config.interfaces
        ifindex = bank.stored("IFINDEX", count=count)
        types = ENTRY_TYPE_MASK << ENTRY_TYPE_BIT
        following = CHAIN_WORDS - 1 << ENTRY_NEXT_BIT
        kept = ENTRY_VALID | following | types | self.config.program_slots - 1
        hooks = {"xdp": "ENTRY", "ingress": "TCX_INGRESS", "egress": "TCX_EGRESS", "socket": "SOCKET"}
        words = {name: bank.stored(register, kept, count) for name, register in hooks.items()}
        mode = bank.stored("MODE", MODE_INGRESS_WAITS | MODE_EGRESS_WAITS, count)
        bank.shown("NEXT_SEQUENCE", [status.next_sequence for status in self.status])
        bank.shown("OLDEST_SEQUENCE", [status.oldest_sequence for status in self.status])
        m.d.comb += [
            self.chain.enable.eq(bank.command("CHAIN")),
            self.chain.index.eq(bank.data >> CHAIN_BIT),
            _entry(self.chain.entry, bank.data),
        ]
        for i, control in enumerate(self.interface):
            m.d.comb += [_entry(getattr(control, name), stored[i]) for name, stored in words.items()]
            m.d.comb += [
                control.ifindex.eq(ifindex[i]),
                control.ingress_waits.eq((mode[i] & MODE_INGRESS_WAITS) != 0),
                control.egress_waits.eq((mode[i] & MODE_EGRESS_WAITS) != 0),
            ]


def _entry(entry, word: Value):
    """Sets an interfaces.Entry to a word of ENTRY or its like."""
    fields = [
        entry.valid.eq((word & ENTRY_VALID) != 0),
        entry.slot.eq(word),
        entry.program_type.eq(word >> ENTRY_TYPE_BIT),
        entry.following.eq(word >> ENTRY_NEXT_BIT),
    ]
    return fields
