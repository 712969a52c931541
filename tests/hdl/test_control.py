"""The registers over AXI4-Lite, with real program store and map memory behind them."""

import random

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.control import Control
from bpfnic.hdl.counters import COUNTERS
from bpfnic.hdl.interfaces import IngressEvent
from bpfnic.hdl.maps import MapEngine, MapMemory
from bpfnic.hdl.programs import ProgramStore
from bpfnic.hdl.registers import RegisterBank
from bpfnic.spec import engine, registers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Group
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import BY_NAME, REGISTERS, WIDTH_TAKES, Access

OKAY, SLVERR = 0, 2


class Board(Component):
    """Control with the memories that it reaches; everything else of it is left open."""

    def __init__(self, config: NicConfig):
        self.config = config
        self.control = Control(config)
        self.store = ProgramStore(config)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.control, m.submodules.store = self.control, self.store
        m.submodules.memory = memory = MapMemory(self.config)
        m.submodules.engine = engine = MapEngine(self.config)
        connect(m, self.control.map, memory.port[self.config.cores])
        connect(m, self.control.keyed, engine.host)
        connect(m, engine.table, memory.table)
        connect(m, engine.rows, memory.rows)
        connect(m, self.control.secret, engine.secret)
        connect(m, self.control.program, self.store.write)
        return m


class Bus:
    """An AXI4-Lite master; each access takes its channels one after the other with random waits."""

    def __init__(self, ctx, control, rng):
        self.ctx, self.control, self.rng = ctx, control, rng

    async def _wait(self):
        for _ in range(self.rng.choice([0, 0, 1, 3])):
            await self.ctx.tick()

    async def _clock(self):
        """One clock; returns what was high before its end."""
        c = self.control
        await self.ctx.delay(4e-7)
        high = {name for name in ("awready", "wready", "bvalid", "arready", "rvalid") if self.ctx.get(getattr(c, name))}
        await self.ctx.tick()
        return high

    async def write(self, address, value, strobes=0b1111):
        ctx, c = self.ctx, self.control
        ctx.set(c.awaddr, address)
        ctx.set(c.wdata, value)
        ctx.set(c.wstrb, strobes)
        first, second = self.rng.sample(["aw", "w"], 2)
        ctx.set(getattr(c, f"{first}valid"), 1)
        await self._wait()
        ctx.set(getattr(c, f"{second}valid"), 1)
        while ctx.get(c.awvalid) or ctx.get(c.wvalid):
            high = await self._clock()
            for channel in ("aw", "w"):
                if f"{channel}ready" in high:
                    ctx.set(getattr(c, f"{channel}valid"), 0)
        await self._wait()
        ctx.set(c.bready, 1)
        while True:
            response = ctx.get(c.bresp)
            if "bvalid" in await self._clock():
                break
        ctx.set(c.bready, 0)
        return response

    async def read(self, address):
        ctx, c = self.ctx, self.control
        ctx.set(c.araddr, address)
        ctx.set(c.arvalid, 1)
        while "arready" not in await self._clock():
            pass
        ctx.set(c.arvalid, 0)
        await self._wait()
        ctx.set(c.rready, 1)
        while True:
            result = ctx.get(c.rdata), ctx.get(c.rresp)
            if "rvalid" in await self._clock():
                break
        ctx.set(c.rready, 0)
        return result

    async def put(self, name, value, index=0):
        assert await self.write(BY_NAME[name].address(index), value) == OKAY

    async def get(self, name, index=0):
        value, response = await self.read(BY_NAME[name].address(index))
        assert response == OKAY
        return value


def simulate(config, bench, *others):
    board = Board(config)
    simulator = Simulator(board)
    simulator.add_clock(1e-6)

    async def main(ctx):
        await bench(ctx, board, Bus(ctx, board.control, random.Random(1)))

    simulator.add_testbench(main)
    for other in others:

        async def background(ctx, other=other):
            await other(ctx, board)

        simulator.add_testbench(background, background=True)
    simulator.run()


def test_device_describes_itself():
    config = NicConfig(cores=2, threads=8, program_slots=512, map_bytes=8192, maps=16, ports=1, buffer_bytes=4096)

    async def bench(ctx, board, bus):
        expected = {"MAGIC": int.from_bytes(b"BPFN", "little"), "VERSION": 0x20000, "ENGINE": 0, "CORES": 2,
                    "THREADS": 8, "PROGRAM_SLOTS": 512, "PACKET_BUFFERS": 16, "BUFFER_BYTES": 4096,
                    "MAP_BYTES": 8192, "MAPS": 16, "PORTS": 1}  # fmt: skip
        assert {name: await bus.get(name) for name in expected} == expected
        groups = {Group.BASE32, Group.BASE64, Group.DIVMUL32, Group.DIVMUL64, Group.ATOMIC32, Group.ATOMIC64,
                  Group.PACKET, Group.CALLX, Group.ACQUIRE_RELEASE, Group.MAY_GOTO, Group.FIRMWARE}  # fmt: skip
        assert engine.groups_of(await bus.get("GROUPS")) == groups
        types = {1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 16, 17, 22, 23, 25, 27}
        assert await bus.get("MAP_TYPES") == sum(1 << number for number in types)
        helpers = [await bus.get("HELPERS", i) for i in range(8)]
        named = {32 * i + bit for i, word in enumerate(helpers) for bit in range(32) if word >> bit & 1}
        assert named == {1, 2, 3, 5, 7, 8, 12, 13, 23, 25, 28, 44, 51, 54, 65, 87, 88, 89, 93, 94, 125,
                         130, 131, 132, 133, 134, 160, 252, 253, 254, 255}  # fmt: skip

    simulate(config, bench)


def test_a_small_build_says_which_map_types_and_helpers_it_has():
    kinds = frozenset({MapType.ARRAY, MapType.HASH, MapType.DEVMAP_HASH})

    async def bench(ctx, board, bus):
        assert [await bus.get("MAP_TYPES", i) for i in range(2)] == [1 << 1 | 1 << 2 | 1 << 25, 0]
        own = await bus.get("HELPERS", 7)
        assert own == 1 << 28  # of the NIC's own the step of a walk (252), which its runtime calls

    simulate(NicConfig(threads=8, map_types=kinds, receive_metadata=False), bench)
    with pytest.raises(BpfnicError, match="map_types must be some of HASH, ARRAY, .*, not STACK_TRACE, ARENA"):
        NicConfig(map_types=kinds | {MapType.ARENA, MapType.STACK_TRACE})


def test_every_register_keeps_to_its_access():
    """Mapped addresses answer as the table says; everything else answers SLVERR and changes nothing."""
    arrays = frozenset({MapType.ARRAY})  # an engine with less to simulate
    config = NicConfig(threads=8, program_slots=64, map_bytes=4096, map_types=arrays)
    places = {register.address(i): register for register in REGISTERS for i in range(register.count)}

    async def bench(ctx, board, bus):
        for register in REGISTERS:
            if register.access is Access.RW and register.name not in ("TIME", "PROGRAM_DATA", "MAP_DATA"):
                assert await bus.get(register.name) == register.reset
        for address in range(0, 1 << registers.ADDRESS_BITS, 4):
            register = places.get(address)
            value, response = await bus.read(address)
            assert response == (SLVERR if register is None else OKAY), hex(address)
            if register is None or register.access is Access.WO:
                assert value == 0
            written = await bus.write(address, 1)
            assert written == (SLVERR if register is None or register.access is Access.RO else OKAY), hex(address)
        for address in (0x101, 0x102, 0x203):
            assert (await bus.read(address))[1] == SLVERR
            assert await bus.write(address, 0) == SLVERR
        for strobes in (0b0000, 0b0001, 0b1110, 0b0111):
            assert await bus.write(BY_NAME["BUDGET"].offset, 77, strobes) == SLVERR
        assert await bus.get("BUDGET") == 1

    simulate(config, bench)


def test_stored_registers_reach_the_device():
    config = NicConfig(threads=8)
    fields = {"type": 6, "base": 0x1230, "entries": 0xFFFF_FFFF, "stride": 4096, "value_size": 4095, "cpu_stride": 2048,
              "key_size": 64, "table": 0x4560, "buckets": 0x3FF, "links": 0x4780, "keys": 0x5000,
              "order": 0x6010}  # fmt: skip
    seen = []

    async def bench(ctx, board, bus):
        control = board.control
        await bus.put("CONTROL", 0xFFFF_FFFF)
        await bus.put("BUDGET", 12345)
        assert ctx.get(control.budget) == 12345
        await ctx.tick().until(control.counters.ready)
        assert ctx.get(control.enable) == 1
        for i in range(config.interfaces):
            await bus.put("IFINDEX", 100 + i, i)
            await bus.put("ENTRY", registers.ENTRY_VALID | 7 * i, i)
            await bus.put("TCX_INGRESS", registers.entry_word(8 * i, ProgramType.SCHED_CLS, 15 - i), i)
            await bus.put("TCX_EGRESS", 9 * i, i)
            await bus.put("SOCKET", registers.entry_word(10 * i, ProgramType.SOCKET_FILTER), i)
            await bus.put("MODE", i, i)
        for i, interface in enumerate(control.interface):
            got = ctx.get(interface)
            xdp, ingress, egress, filter = got["xdp"], got["ingress"], got["egress"], got["socket"]
            assert (got["ifindex"], xdp["valid"], xdp["slot"], xdp["program_type"]) == (100 + i, 1, 7 * i, 0)
            assert (ingress["valid"], ingress["slot"], ingress["program_type"]) == (1, 8 * i, 1)
            assert (ingress["following"], egress["valid"], egress["slot"]) == (15 - i, 0, 9 * i)
            assert (filter["valid"], filter["slot"], filter["program_type"]) == (1, 10 * i, 2)
            assert (got["ingress_waits"], got["egress_waits"]) == (i & 1, i >> 1)
            ctx.set(control.status[i].next_sequence, 5 + i)
            ctx.set(control.status[i].oldest_sequence, 3 + i)
        for i in range(config.interfaces):
            assert (await bus.get("NEXT_SEQUENCE", i), await bus.get("OLDEST_SEQUENCE", i)) == (5 + i, 3 + i)
        for name, value in fields.items():
            await bus.put(f"MAP_{name.upper()}", value)
        await bus.put("MAP_COMMIT", 5)
        await bus.put("MAP_COMMIT", config.maps)  # there is none
        assert seen == [(5, fields)]

    async def watch(ctx, board):
        write = board.control.descriptor
        while True:
            await ctx.delay(4e-7)
            if ctx.get(write.enable):
                descriptor = ctx.get(write.descriptor)
                seen.append((ctx.get(write.index), {name: descriptor[name] for name in fields}))
            await ctx.tick()

    simulate(config, bench, watch)


def test_programs_and_map_memory_through_their_windows():
    config = NicConfig(threads=8, program_slots=64, map_bytes=4096)
    rng = random.Random(2)
    code = [rng.getrandbits(32) for _ in range(128)]
    values = [rng.getrandbits(32) for _ in range(32)]

    async def bench(ctx, board, bus):
        await bus.put("PROGRAM_ADDRESS", 0)
        for word in code:
            await bus.put("PROGRAM_DATA", word)
        assert await bus.get("PROGRAM_ADDRESS") == 0  # behind the last slot comes the first
        for slot in (0, 1, 31, 62, 63):
            ctx.set(board.store.read.slot, slot)
            ctx.set(board.store.read.even_row, (slot + 1) // 2 % 32)
            await ctx.tick()
            ctx.set(board.store.read.slot, 0)
            ctx.set(board.store.read.even_row, 0)
            await ctx.tick()
            assert ctx.get(board.store.read.instruction) == code[2 * slot] | code[2 * slot + 1] << 32
            assert ctx.get(board.store.read.next_imm) == code[(2 * slot + 3) % 128]
            assert ctx.get(board.store.read.next_reserved) == bool(code[(2 * slot + 2) % 128])
        await bus.put("PROGRAM_ADDRESS", 9)
        assert [await bus.get("PROGRAM_DATA") for _ in range(6)] == code[9:15]
        assert await bus.get("PROGRAM_ADDRESS") == 15

        await bus.put("MAP_ADDRESS", 4096 - 64)
        for word in values:
            await bus.put("MAP_DATA", word)
        assert await bus.get("MAP_ADDRESS") == 64
        await bus.put("MAP_ADDRESS", 4096 - 64 + 8)
        assert [await bus.get("MAP_DATA") for _ in range(30)] == values[2:]

        # Single bytes and pairs, and nothing beside them.
        memory = bytearray(b"".join(value.to_bytes(4, "little") for value in values[:4]))
        for width, at in ((0, 5), (1, 10), (0, 7), (1, 0)):
            await bus.put("MAP_WIDTH", width)
            await bus.put("MAP_ADDRESS", 4096 - 64 + at)
            for number in range(2):
                await bus.put("MAP_DATA", 0xA1B2C3D0 + number)
                place = slice(at + (number << width), at + ((number + 1) << width))
                memory[place] = (0xA1B2C3D0 + number).to_bytes(4, "little")[: 1 << width]
            assert await bus.get("MAP_ADDRESS") == 4096 - 64 + at + (2 << width)
            await bus.put("MAP_ADDRESS", 4096 - 64 + at)
            assert await bus.get("MAP_DATA") == int.from_bytes(memory[at : at + (1 << width)], "little")
        await bus.put("MAP_WIDTH", 2)
        await bus.put("MAP_ADDRESS", 4096 - 64)
        found = [await bus.get("MAP_DATA") for _ in range(4)]
        assert b"".join(value.to_bytes(4, "little") for value in found) == memory

        # A read that leaves 1.
        await bus.put("MAP_WIDTH", 2 | WIDTH_TAKES)
        for expected in (found[1], 1):
            await bus.put("MAP_ADDRESS", 4096 - 64 + 4)
            assert await bus.get("MAP_DATA") == expected
        await bus.put("MAP_DATA", 77)  # a write is what it always is
        await bus.put("MAP_WIDTH", 2)
        await bus.put("MAP_ADDRESS", 4096 - 64)
        assert [await bus.get("MAP_DATA") for _ in range(4)] == [found[0], 1, 77, found[3]]

    simulate(config, bench)


def test_a_clock_of_another_length():
    async def bench(ctx, board, bus):
        assert await bus.get("CLOCK_NS") == 20
        start = ctx.get(board.control.time)
        await ctx.tick().repeat(10)
        assert ctx.get(board.control.time) - start == 200

    simulate(NicConfig(threads=8, clock_ns=20), bench)
    with pytest.raises(BpfnicError, match="clock_ns must be 1 to 255, not 0"):
        NicConfig(clock_ns=0)


def test_time_and_random():
    config = NicConfig(threads=8)

    async def bench(ctx, board, bus):
        control = board.control
        await ctx.tick().repeat(2)
        start = ctx.get(control.time)
        await ctx.tick().repeat(10)
        assert ctx.get(control.time) - start == 80
        await bus.put("CLOCK_NS", 10)
        await ctx.tick()
        start = ctx.get(control.time)
        ctx.set(control.advance, 1 << 40)
        await ctx.tick()
        ctx.set(control.advance, 0)
        await ctx.tick().repeat(4)
        assert ctx.get(control.time) - start == 50 + (1 << 40)
        await bus.put("TIME", 0xFFFF_FFF0, 0)
        await bus.put("TIME", 7, 1)
        low, high = await bus.get("TIME", 0), await bus.get("TIME", 1)
        assert 0 <= (high << 32 | low) - 0x7_FFFF_FFF0 < 300

        def follow(x):  # Marsaglia, "Xorshift RNGs" (2003), section 3
            x ^= x << 13 & 0xFFFF_FFFF
            x ^= x >> 17
            return x ^ x << 5 & 0xFFFF_FFFF

        draws = []
        for seed in (1, 1, 0xDEADBEEF, 0):
            await bus.put("RANDOM_SEED", seed)
            value = ctx.get(control.random)
            assert value != 0
            await ctx.tick()
            assert ctx.get(control.random) == follow(value)
            draws.append(value)
        x, reached = 1, set()
        for _ in range(100):
            reached.add(x)
            x = follow(x)
        assert {draws[0], draws[1]} <= reached and draws[2] not in reached

    simulate(config, bench)


@pytest.mark.parametrize("cores", [1, 3])
def test_snapshots_count_every_event_and_balance(cores):
    config = NicConfig(cores=cores, threads=8, ports=1)
    rng = random.Random(5)
    totals, stopped, clocks = {}, [], []

    def add(name, index, amount):
        totals[name, index] = totals.get((name, index), 0) + amount

    async def traffic(ctx, board):
        """Random events in most clocks, consistent with each other as the packet path's are."""
        control, flying, beats = board.control, [0] * config.ingresses, [0] * config.ingresses
        await ctx.tick().until(control.counters.ready)
        while not stopped:
            causes = 0
            ends = rng.randrange(config.ingresses)  # one packet's outcome in a clock, at most
            for i, status in enumerate(control.status):
                events = 0
                ctx.set(status.in_flight, flying[i])
                totals["IN_FLIGHT", i] = flying[i]
                beats[i] += 1
                size = 8 * beats[i] - rng.randrange(8)
                ctx.set(status.received_bytes, size)
                if rng.random() < (0.8, 0.02, 0.3)[i]:
                    beats[i] = 0
                    events |= 1 << IngressEvent.RECEIVED
                    add("RECEIVED", i, 1)
                    add("RECEIVED_BYTES", i, size)
                    refused = rng.choice([None, None, "REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR"])
                    if flying[i] == config.cores * config.packet_buffers:
                        refused = "REFUSED_FULL"
                    if refused:
                        events |= 1 << IngressEvent[refused]
                        add(refused, i, 1)
                    else:
                        flying[i] += 1
                if i == ends and flying[i] and rng.random() < 0.9:
                    outcome = rng.choice(["DROPPED", "PASSED", "TRANSMITTED", "REDIRECTED", "ABORTED"])
                    if outcome == "ABORTED":
                        cause = rng.randint(1, 12)
                        causes = 1 << cause
                        add("CAUSES", cause, 1)
                    events |= 1 << IngressEvent[outcome]
                    add(outcome, i, 1)
                    flying[i] -= 1
                ctx.set(status.events, events)
                sent, length = rng.random() < 0.9, rng.choice([8, 64])
                ctx.set(status.sent, sent)
                ctx.set(status.sent_bytes, length)
                dropped = rng.random() < 0.1
                ctx.set(status.egress_dropped, dropped)
                add("SENT", i, sent)
                add("SENT_BYTES", i, length * sent)
                add("EGRESS_DROPPED", i, dropped)
            retired = rng.getrandbits(cores)
            ctx.set(control.retired, retired)
            add("RETIRED", 0, retired.bit_count())
            ctx.set(control.causes, causes)
            await ctx.tick()
        ctx.set(control.retired, 0)
        ctx.set(control.causes, 0)
        for i, status in enumerate(control.status):
            for name in ("events", "sent", "egress_dropped"):
                ctx.set(getattr(status, name), 0)
            ctx.set(status.in_flight, flying[i])
            totals["IN_FLIGHT", i] = flying[i]

    async def bench(ctx, board, bus):
        names = ["RECEIVED", "REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR", "DROPPED", "PASSED", "TRANSMITTED",
                 "REDIRECTED", "ABORTED", "IN_FLIGHT"]  # fmt: skip
        assert await bus.get("RECEIVED", 0) == 0  # no snapshot yet
        for last in (False, False, True):
            if last:
                stopped.append(True)
                await ctx.tick().repeat(3)
            earlier = dict(totals)
            await bus.put("SNAPSHOT", 0)
            later = dict(totals)
            keys = [(register.name, i) for register in COUNTERS for i in range(register.count)]
            rng.shuffle(keys)
            shown = {key: await bus.get(*key) for key in keys}
            clocks.append(shown.pop(("CLOCKS", 0)))
            for key, value in shown.items():
                if key[0] != "IN_FLIGHT":
                    assert earlier.get(key, 0) <= value <= later.get(key, 0), key
            for i in range(config.ingresses):
                assert shown["RECEIVED", i] == sum(shown[name, i] for name in names[1:])
            aborted = sum(shown["ABORTED", i] for i in range(config.ingresses))
            assert aborted == sum(shown["CAUSES", i] for i in range(16))
        assert shown == {key: totals.get(key, 0) % 2**32 for key in shown}

    simulate(config, bench, traffic)
    assert totals["RECEIVED", 0] > 1000 and totals["RECEIVED_BYTES", 1] > 10_000
    assert clocks[0] < clocks[1] < clocks[2] > 500


def test_counters_carry_into_their_high_words():
    """RETIRED and CLOCKS pass 2**32; a counter of 32 bits that does so carries into none."""
    config = NicConfig(threads=8, ports=1)
    first = BY_NAME["RECEIVED"].offset
    counted = (("RETIRED", 0), ("CLOCKS", 0), ("RECEIVED", 1), ("CAUSES", 12))

    async def bench(ctx, board, bus):
        control, contents = board.control, board.control.counters.ram.contents
        for name, index in counted:
            place = (BY_NAME[name].address(index) - first) // 4
            while ctx.get(contents[place]) < 2**31:  # a visit under way writes over it
                ctx.set(contents[place], 2**32 - 2048 + ctx.get(contents[place]) % 1024)
                await ctx.tick().repeat(150)
        ctx.set(control.retired, 1)
        ctx.set(control.causes, 1 << 12)
        ctx.set(control.status[1].events, 1 << IngressEvent.RECEIVED)
        await ctx.tick().repeat(2100)
        await bus.put("SNAPSHOT", 0)
        for name in ("RETIRED", "CLOCKS"):
            assert await bus.get(name, 1) == 1
        for name, index in counted:
            assert await bus.get(name, index) < 2000
        assert await bus.get("RECEIVED_BYTES", 0) == 0  # the one behind RECEIVED of ingress 1

    simulate(config, bench)


def test_a_register_without_a_behaviour_is_an_error():
    m = Module()
    bank = RegisterBank(m)
    bank.constant("MAGIC", 1)
    with pytest.raises(BpfnicError, match="register VERSION has no behaviour"):
        bank.build()
    with pytest.raises(BpfnicError, match="register MAGIC has two behaviours"):
        bank.constant("MAGIC", 1)
    with pytest.raises(BpfnicError, match="register BUDGET is rw, not ro"):
        bank.constant("BUDGET", 1)
