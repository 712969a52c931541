"""cocotb's side of test_board.py: PHYs of cocotbext-eth at a board's RGMII pins, a UART at its line, and the driver,
which blocks, in a thread of its own. The line loses, damages, repeats and delays messages."""

import random
from collections import deque
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import Event, FallingEdge, Timer, with_timeout
from cocotbext.eth import GmiiFrame, RgmiiSink, RgmiiSource

import bpfnic
from bpfnic.boards.device import open_card
from bpfnic.boards.messages import Unslip, slip
from bpfnic.host import pcap, rules
from bpfnic.host.device import Arrival
from bpfnic.spec import card
from bpfnic.spec.ethernet import MacCounter
from bpfnic.spec.instruction import encode
from bpfnic.spec.registers import BY_NAME
from tests.boards.simulated import CLOCKS_PER_BIT, KEY

CORE_NS = 8
BIT_NS = CLOCKS_PER_BIT * CORE_NS
ANSWER_US = 600  # longer than the longest request and reply take on the line
FIRMWARE = Path(__file__).parents[2] / "firmware"
FIREWALL, RULES, CAPTURE = (FIRMWARE / name for name in (
    "programs/firewall.bpf.c", "samples/firewall.json", "samples/mixed.pcapng"))  # fmt: skip


class Line:
    """The driver's end of the UART (boards.session.Link), called from the driver's thread.

    Attributes
    ----------
    harm : percent of messages, each way, to which something happens.
    harmed : how many were lost, damaged, repeated, delayed.
    """

    name, patience = "line", 0.001

    def __init__(self, dut):
        self.dut = dut
        self.harm = 0
        self.harmed = dict.fromkeys(("lost", "damaged", "repeated", "delayed"), 0)
        self._rng = random.Random(1)
        self._heard: deque[bytes] = deque()
        self._late: list[bytes] = []
        self._arrived = Event()
        self._unslip = Unslip()
        dut.uart_rx.value = 1
        cocotb.start_soon(self._listen())

    def _harmed(self, message: bytes) -> list[bytes]:
        """What becomes of a message."""
        if self._rng.randrange(100) >= self.harm:
            return [message]
        what = self._rng.choice(list(self.harmed))
        self.harmed[what] += 1
        if what == "damaged":
            at = self._rng.randrange(len(message))
            return [message[:at] + bytes([message[at] ^ 1 << self._rng.randrange(8)]) + message[at + 1 :]]
        if what == "delayed":
            self._late.append(message)
        return {"lost": [], "repeated": [message] * 2, "delayed": []}[what]

    @resume
    async def send(self, message: bytes) -> None:
        late, self._late = self._late, []
        for each in (*self._harmed(message), *late):
            for byte in slip(each):
                for bit in range(10):
                    self.dut.uart_rx.value = (0x200 | byte << 1) >> bit & 1
                    await Timer(BIT_NS, "ns")

    @resume
    async def receive(self, seconds: float) -> bytes | None:
        if not self._heard:
            self._arrived.clear()
            try:
                await with_timeout(self._arrived.wait(), ANSWER_US, "us")
            except cocotb.triggers.SimTimeoutError:
                return None
        return self._heard.popleft()

    async def _listen(self) -> None:
        while True:
            await FallingEdge(self.dut.uart_tx)
            await Timer(BIT_NS + BIT_NS // 2, "ns")
            byte = 0
            for bit in range(8):
                byte |= int(self.dut.uart_tx.value) << bit
                await Timer(BIT_NS, "ns")
            for message in self._unslip.feed(bytes([byte])):
                self._heard.extend(self._harmed(message))
                if self._heard:
                    self._arrived.set()

    def close(self) -> None:
        """Nothing is held."""


class Board:
    """Clocks, resets, and a PHY at each port."""

    def __init__(self, dut):
        self.dut = dut
        self.sources, self.sinks = [], []
        for port in range(2):
            def pin(name, port=port):
                return getattr(dut, f"port{port}_{name}")

            clock = getattr(dut, f"receive{port}_clk")
            self.sources.append(RgmiiSource(pin("rx_data"), pin("rx_ctl"), clock))
            self.sinks.append(RgmiiSink(pin("tx_data"), pin("tx_ctl"), pin("tx_clk")))
        for part in (*self.sources, *self.sinks):
            part.log.setLevel("WARNING")

    async def start(self) -> None:
        dut = self.dut
        resets = [dut.rst, dut.transmit_rst, dut.receive0_rst, dut.receive1_rst]
        for reset in resets:
            reset.value = 1
        Clock(dut.clk, CORE_NS, unit="ns").start()
        Clock(dut.receive0_clk, 8002, unit="ps").start()  # 250 ppm off each other
        Clock(dut.receive1_clk, 7998, unit="ps").start()
        Clock(dut.transmit_clk, 8, unit="ns").start()
        await Timer(2, "ns")
        Clock(dut.tx_clk_late, 8, unit="ns").start()
        await Timer(200, "ns")
        for reset in resets:
            reset.value = 0
        await Timer(200, "ns")

    def left(self, port: int) -> list[bytes]:
        """Frames that a PHY has got since it was asked last, each with a right FCS."""
        frames = []
        while not self.sinks[port].empty():
            frame = self.sinks[port].recv_nowait()
            assert frame.check_fcs() and frame.error is None
            frames.append(bytes(frame.get_payload()))
        return frames


def some_frames() -> list[Arrival]:
    """Short ones of the sample capture, most of which the firewall knows."""
    packets = [packet for packet in pcap.read(CAPTURE).packets if 60 <= len(packet.data) < 300]
    return [Arrival(packet.interface % 2, packet.data) for packet in packets[:60]]


def bad_frames() -> dict[MacCounter, GmiiFrame]:
    wrong = GmiiFrame.from_payload(bytes(range(64)))
    wrong.data[30] ^= 4
    return {
        MacCounter.FCS_ERROR: wrong,
        MacCounter.RUNT: GmiiFrame.from_payload(bytes(40), min_len=0),
        MacCounter.GIANT: GmiiFrame.from_payload(bytes(3000)),
    }


def opened():
    """The firewall with maps of the size that its rules need, and these rules."""
    obj = bpfnic.open(FIREWALL)
    obj.maps["rules"].max_entries, obj.maps["rules6"].max_entries = 16, 8
    return obj, rules.read(RULES, obj.maps)


def load(nic, obj, entries):
    """As `bpfnic run` does it; the program."""
    program = nic.load(obj)
    rules.apply(entries, {name: held.device_map for name, held in nic.maps.items()}, lambda name: None)
    program.attach()
    return program


def expected(arrivals: list[Arrival]) -> tuple[list[list[bytes]], dict]:
    """What leaves by each port, and the rules afterwards, as the golden model has it."""
    with bpfnic.Nic("golden") as nic:
        load(nic, *opened())
        traffic = nic.run(arrivals)
        maps = {name: nic.maps[name].device_map.dump() for name in ("rules", "rules6")}
    return [[each.data for each in traffic.departures if each.egress == port] for port in range(2)], maps


def check_program(device, loaded) -> None:
    """The program lies in the program store as it was meant to."""
    code = encode(loaded.image)
    device._transport.write(BY_NAME["PROGRAM_ADDRESS"].address(), 2 * loaded.entry)
    words = device._transport.read_all([BY_NAME["PROGRAM_DATA"].address()] * (len(code) // 4))
    assert b"".join(word.to_bytes(4, "little") for word in words) == code


def swap(device, nic, first) -> None:
    """The same program again, in other slots, and then without the first one."""
    program = first.loaded.program
    second = device.load(program, {name: nic.maps[name].device_map for name in program.maps})
    check_program(device, second)
    for port in range(2):
        device.attach(port, second)
    device.unload(first.loaded)


@cocotb.test()
async def a_firewall_is_loaded_runs_and_is_swapped_under_traffic(dut):
    board, line = Board(dut), Line(dut)
    await board.start()
    arrivals = some_frames()
    bad = bad_frames()
    leaving, content = expected(arrivals)

    line.harm = 6
    obj, entries = opened()
    device = await bridge(open_card)(line, KEY)
    nic = bpfnic.Nic(device)
    first = await bridge(load)(nic, obj, entries)
    await bridge(check_program)(device, first.loaded)
    await bridge(nic.start)()

    async def send(port: int) -> None:
        mine = [arrival.data for arrival in arrivals if arrival.interface == port]
        for number, data in enumerate(mine):
            await board.sources[port].send(GmiiFrame.from_payload(data))
            if number in (3, 10, 11):
                await board.sources[port].send(list(bad.values())[number % 3])
            await board.sources[port].wait()
            await Timer(150, "us")  # so that the driver gets something done

    senders = [cocotb.start_soon(send(port)) for port in range(2)]
    for _ in range(3):
        await bridge(nic.maps["rules"].device_map.dump)()
    await bridge(swap)(device, nic, first)
    for sender in senders:
        await sender
    await Timer(100, "us")

    line.harm = 0
    counters = await bridge(device.counters)()
    assert counters["RECEIVED"][:2] == [sum(each.interface == port for each in arrivals) + 3 for port in range(2)]
    assert (counters["REFUSED_ERROR"][:2], counters["REFUSED_LONG"][:2]) == ([2, 2], [1, 1])
    assert all(not count for name in ("REFUSED_FULL", "ABORTED") for count in counters[name])
    for port in range(2):
        assert board.left(port) == leaving[port]
        macs = [card.BY_NAME["MAC"].address(16 * port + number) for number in MacCounter]
        counted = dict(zip(MacCounter, await bridge(device._transport.read_all)(macs), strict=True))
        assert [counted[kind] for kind in bad] == [1, 1, 1]
        assert counted[MacCounter.RECEIVED] == sum(each.interface == port for each in arrivals)
        assert counted[MacCounter.SENT] == len(leaving[port])
    for name, entries in content.items():
        assert await bridge(nic.maps[name].device_map.dump)() == entries
    assert all(line.harmed.values()), line.harmed
    await bridge(nic.close)()
