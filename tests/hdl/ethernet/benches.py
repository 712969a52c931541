"""cocotb's side of test_mac.py: a PHY of cocotbext-eth at the pins, streams at the core's side. KIND is the adapter's
name, SPEED the link's Mbit/s, CORE_NS the core's period, IDLE and STALL percent of its clocks."""

import os
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource, MiiPhy, RgmiiPhy

from bpfnic.sim.cocotb.bench import pauses
from bpfnic.spec.ethernet import FCS_BYTES, GAP_BYTES, PREAMBLE, PREAMBLE_BYTES, MacCounter, Speed

KIND = os.environ.get("KIND", "gmii")
SPEED = int(os.environ.get("SPEED", "1000"))
CORE_NS = float(os.environ.get("CORE_NS", "8"))
BYTE_NS = 8000 / SPEED
SHORTEST, LONGEST = 60, 1514  # bytes without FCS of what everybody sends


class Bench:
    """The MAC with its PHY. `arrive` frames at the pins, `leave` the core."""

    def __init__(self, dut):
        self.dut = dut
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
        self.sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
        self.source.set_pause_generator(pauses(int(os.environ.get("IDLE", "0")), 1))
        self.stall(int(os.environ.get("STALL", "0")))
        if KIND == "rgmii":
            phy = RgmiiPhy(dut.rgmii_tx_data, dut.rgmii_tx_ctl, dut.rgmii_tx_clk, dut.rgmii_rx_data, dut.rgmii_rx_ctl,
                           dut.rx_clk, speed=SPEED * 1e6)  # fmt: skip
            cocotb.start_soon(self._transmit_clock())
            dut.status.value = 0
        elif KIND == "mii":
            phy = MiiPhy(dut.tx_data, None, dut.tx_en, dut.tx_clk, dut.rx_data, dut.rx_er, dut.rx_dv, dut.rx_clk,
                         speed=SPEED * 1e6)  # fmt: skip
        else:
            Clock(dut.rx_clk, 8002, unit="ps").start()  # 250 ppm off the transmit clock
            Clock(dut.tx_clk, 8, unit="ns").start()
            self.phy_sends = GmiiSource(dut.rx_data, dut.rx_er, dut.rx_dv, dut.rx_clk)
            self.phy_takes = GmiiSink(dut.tx_data, None, dut.tx_en, dut.tx_clk)
        if KIND != "gmii":
            self.phy_sends, self.phy_takes = phy.rx, phy.tx
        for part in (self.phy_sends, self.phy_takes):
            part.log.setLevel("WARNING")

    async def _transmit_clock(self):
        """125 MHz, and the same a quarter later."""
        while True:
            for clock, value in ((self.dut.tx_clk, 1), (self.dut.tx_clk_late, 1), (self.dut.tx_clk, 0),
                                 (self.dut.tx_clk_late, 0)):  # fmt: skip
                clock.value = value
                await Timer(2, "ns")

    def stall(self, percent: int) -> None:
        """Percent of clocks in which the core takes nothing."""
        self.sink.set_pause_generator(pauses(percent, 2))

    @classmethod
    async def start(cls, dut) -> "Bench":
        resets = dut.rst, dut.rx_rst, dut.tx_rst
        for reset in resets:
            reset.value = 1
        dut.counter_address.value = 0
        bench = cls(dut)
        Clock(dut.clk, round(CORE_NS * 1000), unit="ps").start()
        await Timer(100, "ns")
        await bench.wire(10)
        for reset in resets:
            reset.value = 0
        if KIND == "rgmii":  # the PHY says how fast the link is
            speed = {10: Speed.MBIT_10, 100: Speed.MBIT_100, 1000: Speed.MBIT_1000}[SPEED]
            dut.status.value = 0b1001 | speed << 1
        await bench.wire(10)
        bench.before = await bench.counters()
        bench.edges = []
        cocotb.start_soon(bench._watch())
        return bench

    async def _watch(self):
        """When frames begin and end at the transmit pins, in ps: the PHYs' models sleep through a first byte."""
        pin = {"gmii": "tx_en", "mii": "tx_en", "rgmii": "rgmii_tx_ctl"}[KIND]
        while True:
            await getattr(self.dut, pin).value_change
            self.edges.append(get_sim_time("ps"))

    def on_the_wire(self, count: int) -> tuple[list[int], list[int]]:
        """Of the first frames sent: how long each was, and each gap between two, in bytes' time."""
        pairs = zip(self.edges[: 2 * count], self.edges[1 : 2 * count], strict=False)
        times = [(after - before) / (BYTE_NS * 1000) for before, after in pairs]
        assert all(time == int(time) for time in times)
        return [int(time) for time in times[::2]], [int(time) for time in times[1::2]]

    async def wire(self, count: int) -> None:
        """So many bytes' time on the wire."""
        await Timer(round(count * BYTE_NS), "ns")

    async def counters(self) -> dict[MacCounter, int]:
        """What the counters say; they survive a reset, so that benches look at differences."""
        found = {}
        for counter in MacCounter:
            self.dut.counter_address.value = counter.value
            await ClockCycles(self.dut.clk, 2)
            found[counter] = int(self.dut.counter_value.value)
        return found

    async def counted(self) -> dict[MacCounter, int]:
        """Counters but LINK that have changed since the start."""
        now = await self.counters()
        counts = (counter for counter in MacCounter if counter is not MacCounter.LINK)
        return {each: now[each] - self.before[each] for each in counts if now[each] != self.before[each]}

    async def received(self, count: int) -> list[tuple[bytes, bool]]:
        """The next frames at the core: bytes, and is it good?"""
        frames = []
        for _ in range(count):
            frame = await self.sink.recv(compact=False)
            kept = bytes(byte for byte, keep in zip(frame.tdata, frame.tkeep, strict=True) if keep)
            frames.append((kept, not frame.tuser[-1]))
        return frames

    async def sent(self, count: int) -> list[GmiiFrame]:
        """The next frames at the PHY."""
        return [await self.phy_takes.recv() for _ in range(count)]


def some_lengths(rng: random.Random) -> list[int]:
    """Each length modulo 8 at both ends, some between, and the longest that a buffer takes."""
    return [*range(SHORTEST, SHORTEST + 9), *range(LONGEST - 8, LONGEST + 1), *rng.choices(range(69, 400), k=12), 1792]


@cocotb.test()
async def frames_of_all_lengths_arrive(dut):
    """As they were sent, one after the other with the shortest gap."""
    bench, rng = await Bench.start(dut), random.Random(1)
    frames = [rng.randbytes(length) for length in some_lengths(rng)]
    rng.shuffle(frames)
    for frame in frames:
        await bench.phy_sends.send(GmiiFrame.from_payload(frame))
    assert await bench.received(len(frames)) == [(frame, True) for frame in frames]
    await ClockCycles(dut.clk, 20)
    assert await bench.counted() == {
        MacCounter.RECEIVED: len(frames), MacCounter.RECEIVED_BYTES: sum(map(len, frames)),
    }  # fmt: skip


@cocotb.test()
async def frames_of_all_lengths_leave(dut):
    """With preamble and FCS, padded to 60 bytes with zeros; so many at once that they follow each other with a gap of
    exactly 12 bytes, whatever the pace of the core."""
    bench, rng = await Bench.start(dut), random.Random(2)
    frames = [rng.randbytes(length) for length in (*range(14, 24), *some_lengths(rng), 59, 1, 8, 9)]
    rng.shuffle(frames)
    for frame in frames:
        await bench.source.send(AxiStreamFrame(frame))
    sent = await bench.sent(len(frames))
    for frame, taken in zip(frames, sent, strict=True):
        assert taken.check_fcs() and taken.error is None
        assert set(taken.get_preamble()[:-1]) <= {PREAMBLE}
        assert taken.get_payload() == frame.ljust(SHORTEST, b"\0")
    lengths, gaps = bench.on_the_wire(len(frames))
    overhead = PREAMBLE_BYTES + 1 + FCS_BYTES
    assert lengths == [max(len(frame), SHORTEST) + overhead for frame in frames]
    assert min(gaps) >= GAP_BYTES
    if int(os.environ.get("IDLE", "0")) < 50:
        assert gaps.count(GAP_BYTES) >= 0.9 * len(gaps)
    await ClockCycles(dut.clk, 40)
    assert await bench.counted() == {MacCounter.SENT: len(frames), MacCounter.SENT_BYTES: sum(map(len, frames))}


def damaged(payload: bytes) -> GmiiFrame:
    """A frame with one wrong bit."""
    frame = GmiiFrame.from_payload(payload)
    frame.data[20] ^= 1
    return frame


@cocotb.test()
async def bad_frames_are_marked_and_counted(dut):
    """Each kind between good frames: nothing bad looks good, and what is behind it is whole."""
    bench, rng = await Bench.start(dut), random.Random(3)
    good = [rng.randbytes(rng.randrange(60, 200)) for _ in range(40)]
    symbol_error = GmiiFrame.from_payload(rng.randbytes(100))
    symbol_error.error = [0] * 60 + [1] * 3 + [0] * (len(symbol_error.data) - 63)
    early_error = GmiiFrame.from_payload(rng.randbytes(100))
    early_error.error = [0, 1] + [0] * (len(early_error.data) - 2)
    runts = [GmiiFrame.from_payload(rng.randbytes(length), min_len=0) for length in (59, 40, 14, 8, 5, 1)]
    fragment = GmiiFrame.from_raw_payload(rng.randbytes(3))
    empty = GmiiFrame.from_raw_payload(b"")
    silent = GmiiFrame(b"\x55" * 30)  # no start of frame: nothing
    giants = [GmiiFrame.from_payload(rng.randbytes(length)) for length in (2045, 2100, 5000)]
    longest = GmiiFrame.from_payload(rng.randbytes(2044))
    fcs_errors = [damaged(rng.randbytes(length)) for length in (60, 61, 1514)]
    cut = GmiiFrame.from_payload(rng.randbytes(200))
    cut.data = cut.data[:-1]
    both = damaged(rng.randbytes(40))
    both.data = both.data[:40]
    bad = [symbol_error, early_error, *runts, *giants, *fcs_errors, cut, both]
    mixed = [*((frame, 1) for frame in bad), (fragment, None), (empty, None), (silent, None), (longest, 0)]
    mixed += [(GmiiFrame.from_payload(payload), 0) for payload in good]
    rng.shuffle(mixed)
    for frame, _ in mixed:
        await bench.phy_sends.send(frame)
    expected = [(frame, state) for frame, state in mixed if state is not None]
    for (frame, state), (payload, is_good) in zip(expected, await bench.received(len(expected)), strict=True):
        assert is_good is (state == 0)
        if state == 0 or len(frame.data) < 2000:
            assert payload == frame.get_payload()
        else:
            assert payload == frame.get_payload()[:2044]  # as many bytes as a buffer has, less an FCS
    await bench.wire(40)
    found = await bench.counted()
    assert found == {
        MacCounter.RECEIVED: len(good) + 1,
        MacCounter.RECEIVED_BYTES: sum(map(len, good)) + 2044,
        MacCounter.FCS_ERROR: len(fcs_errors) + 1,
        MacCounter.SYMBOL_ERROR: 2,
        MacCounter.RUNT: len(runts) + 3,
        MacCounter.GIANT: len(giants),
    }


@cocotb.test()
async def odd_preambles_and_gaps(dut):
    """A shorter or longer preamble and gaps down to one byte: a PHY may shorten both."""
    bench, rng = await Bench.start(dut), random.Random(4)
    frames = []
    for preamble in (0, 1, 2, 6, 7, 8, 20):
        for gap in (1, 2, 5, 12, 30):
            frame = GmiiFrame.from_payload(rng.randbytes(rng.randrange(60, 90)))
            frames.append(bytes(frame.get_payload()))
            frame.data = b"\x55" * preamble + frame.data[7:]
            bench.phy_sends.ifg = gap
            await bench.phy_sends.send(frame)
            await bench.phy_sends.wait()
    assert await bench.received(len(frames)) == [(frame, True) for frame in frames]


@cocotb.test()
async def a_core_that_takes_nothing_loses_whole_frames(dut):
    """What doesn't fit is cut and marked, or lost whole, and counted; all others are as they were sent."""
    bench, rng = await Bench.start(dut), random.Random(5)
    bench.sink.clear_pause_generator()
    bench.sink.pause = True
    frames = [rng.randbytes(rng.choice((60, 64, 100, 200, 1000))) for _ in range(60)]
    for frame in frames:
        await bench.phy_sends.send(GmiiFrame.from_payload(frame))
    await bench.wire(sum(len(frame) + 24 for frame in frames[:40]))
    bench.sink.pause = False
    await bench.phy_sends.wait()
    await bench.wire(1000)
    count = bench.sink.count()
    received = await bench.received(count)
    kept = [frame for frame, is_good in received if is_good]
    remaining = iter(frames)
    assert all(frame in remaining for frame in kept)  # in their order
    found = await bench.counted()
    assert 0 < len(kept) < len(frames)
    assert found == {
        MacCounter.RECEIVED: len(kept), MacCounter.OVERRUN: len(frames) - len(kept),
        MacCounter.RECEIVED_BYTES: sum(map(len, kept)),
    }  # fmt: skip
    assert kept[-1] == frames[-1]  # it goes on as before


@cocotb.test()
async def both_ways_at_once(dut):
    """Each direction carries what it would alone."""
    bench, rng = await Bench.start(dut), random.Random(6)
    frames = [rng.randbytes(rng.randrange(60, 300)) for _ in range(40 if SPEED == 1000 else 3)]
    for frame in frames:
        await bench.phy_sends.send(GmiiFrame.from_payload(frame))
        await bench.source.send(AxiStreamFrame(frame[::-1]))
    assert await bench.received(len(frames)) == [(frame, True) for frame in frames]
    assert [bytes(each.get_payload()) for each in await bench.sent(len(frames))] == [each[::-1] for each in frames]
    await bench.wire(40)
    total = sum(map(len, frames))
    assert await bench.counted() == {
        MacCounter.RECEIVED: len(frames), MacCounter.RECEIVED_BYTES: total,
        MacCounter.SENT: len(frames), MacCounter.SENT_BYTES: total,
    }  # fmt: skip


@cocotb.test()
async def the_link_is_shown(dut):
    """RGMII's in-band status, also after it has changed; 0 where there is none."""
    bench = await Bench.start(dut)
    status = int(dut.status.value) if KIND == "rgmii" else 0
    assert (await bench.counters())[MacCounter.LINK] == status
    if KIND == "rgmii":
        dut.status.value = 0
        await bench.wire(20)
        assert (await bench.counters())[MacCounter.LINK] == 0
        await bench.phy_sends.send(GmiiFrame.from_payload(b"\x01" * 60))  # its speed stays
        assert await bench.received(1) == [(b"\x01" * 60, True)]


@cocotb.test()
async def a_byte_comes_soon(dut):
    """From a frame's last bit at the pins to its last beat: the word's way through the FIFO, some clocks."""
    bench = await Bench.start(dut)
    ended = Event()
    await bench.phy_sends.send(GmiiFrame.from_payload(bytes(60), tx_complete=ended))
    await ended.wait()
    end = get_sim_time("ns")
    while not (int(dut.m_axis_tvalid.value) and int(dut.m_axis_tlast.value)):
        await RisingEdge(dut.clk)
    assert get_sim_time("ns") - end < 8 * BYTE_NS + 8 * CORE_NS


@cocotb.test()
async def a_frame_leaves_soon(dut):
    """From its last beat to the first bit of preamble at the pins: two steps of the transmitter's, and some clocks."""
    bench = await Bench.start(dut)
    await bench.source.send(AxiStreamFrame(bytes(60)))
    while not (int(dut.s_axis_tvalid.value) and int(dut.s_axis_tready.value) and int(dut.s_axis_tlast.value)):
        await RisingEdge(dut.clk)
    end = get_sim_time("ps")
    await bench.sent(1)
    assert bench.edges[0] - end < 1000 * (8 * BYTE_NS + 4 * CORE_NS)
