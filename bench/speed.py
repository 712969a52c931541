"""Clocks and seconds: what the barrel makes of its clocks, and what the simulation makes of its seconds."""

import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bpfnic.boards.catalogue import BOARDS as CATALOGUE
from bpfnic.hdl.config import NicConfig
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.nic import Nic, open
from bpfnic.sim.cocotb import runner
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec.errors import BpfnicError

PROGRAMS = Path("firmware/programs")
ETHERNET, IPV4 = "020000000002 020000000001 0800", "4500003200004000401100000a0000010a000002"
SOURCE_PORTS = range(1234, 1234 + 256)
QUERY = "0000010000010000 00000000 026162 0163 00 00010001"
FRAMES = [bytes.fromhex(f"{ETHERNET} {IPV4} {port:04x}0035001e0000 {QUERY}") for port in SOURCE_PORTS]
"""DNS from 10.0.0.1 to 10.0.0.2, a flow each, which asks for ab.c; 64 bytes."""
FRAME = FRAMES[0]

ATTACHED = {"flows": "account", "tailchain": "ethernet", "tc-police": "police"}
"""The program to attach, by file, where there are several or it is named otherwise."""
CONTENT: dict[str, dict[str, list[tuple[Any, Any]]]] = {
    "firewall": {"rules": [({"saddr": "10.0.0.1", "daddr": "10.0.0.2", "sport": port, "dport": 53, "protocol": "UDP"},
                            {"action": "XDP_REDIRECT", "ifindex": 2}) for port in SOURCE_PORTS]},
    "forward": {"next_hops": [(2, {"destination": "02:00:00:00:00:03", "source": "02:00:00:00:00:04", "ifindex": 2})]},
    "acl": {"sources": [("0.0.0.0/0", {"rule": 9, "action": "XDP_DROP"}),
                        ("10.0.0.0/8", {"rule": 2, "action": "XDP_TX"})],
            "destinations": [("10.0.0.0/24", {"rule": 3, "action": "XDP_DROP"})]},
    "balancer": {"services": [({"address": "::ffff:10.0.0.2", "port": 53, "protocol": 17}, {"number": 1})],
                 "rings": [(251 + place, 1) for place in range(251)], "servers": [(1, "::ffff:10.0.9.1")]},
    "dnsfilter": {"domains": [({"length": 16, "reversed": "c."}, {"action": "XDP_DROP"})]},
    "tunnel": {"routes": [("10.0.0.0/8", 1)],
               "tunnels": [(1, {"local": "192.0.2.1", "remote": "192.0.2.2", "ifindex": 2, "mtu": 1480})]},
    "tc-police": {"services": [({"protocol": 17, "port": 53}, 2)],
                  "classes": [(2, {"longest": 1514, "dscp": 10, "port": 5300})]},
    "vlanmap": {"untagged": [("02:00:00:00:00:02", {"ifindex": 2})]},
    "router": {"routes": [("0.0.0.0/0", {"port": 1}), ("10.0.0.0/8", {"gateway": "192.0.2.1", "port": 1})],
               "neighbours": [("192.0.2.1", {"mac": "02:00:00:00:00:03"})],
               "ports": [(1, {"mac": "02:00:00:00:00:04", "mtu": 1500})], "interfaces": [(1, "port1")]},
}  # fmt: skip
"""What stands in their maps, so that packets find it."""
VARIABLES = {"nat": {"inside_ifindex": 1, "outside_ifindex": 2}}
PACKETS = 4000
THREADS = 16
DEFAULT = DeviceOptions(threads=THREADS)
TRIES = 5
INTERFACES = 3


class RecordingTransport(RtlTransport):
    """Remembers the register writes, so that another simulation can be set up the same way."""

    def __init__(self, options: DeviceOptions, say: build.Say):
        self.writes: list[tuple[int, int]] = []
        super().__init__(options, say)

    def write(self, address: int, value: int) -> None:
        self.writes.append((address, value))
        super().write(address, value)


@dataclass
class Run:
    """One program on back-to-back 64-byte packets. Seconds are processor time: of the native loop, and of the whole run
    with the records that Python makes of it."""

    program: str
    packets: int
    clocks: int
    instructions: int
    latency: int
    loop_seconds: float
    run_seconds: float
    writes: list[tuple[int, int]] = field(repr=False)

    @property
    def instructions_a_clock(self) -> float:
        return self.instructions / self.clocks

    @property
    def instructions_a_packet(self) -> float:
        return self.instructions / self.packets

    @property
    def clocks_a_packet(self) -> float:
        return self.clocks / self.packets

    @property
    def clocks_a_second(self) -> float:
        return self.clocks / self.loop_seconds

    @property
    def packets_a_second(self) -> float:
        return self.packets / self.run_seconds


def run(
    name: str, say: build.Say, packets: int = PACKETS, interfaces: int = 1, options: DeviceOptions = DEFAULT
) -> Run:
    """Run a firmware program on packets into the first interfaces in turn. Of several tries the quickest counts: others
    use the machine too. Raises BpfnicError where the NIC is too small for it."""
    obj = open(PROGRAMS / f"{name}.bpf.c")
    obj.rodata.update(VARIABLES.get(name, {}))
    say(f"running {name}")
    transport = RecordingTransport(options, say)
    with Nic(RegisterDevice(transport)) as nic:
        program = nic.load(obj, ATTACHED.get(name))
        for map_name, entries in CONTENT.get(name, {}).items():
            nic.maps[map_name].update_batch(entries)
        for port in range(min(interfaces, nic.ports)):
            program.attach(port)
        arrivals = [Arrival(number % interfaces, FRAMES[number % len(FRAMES)]) for number in range(packets)]
        loop_seconds, run_seconds, writes = [], [], []
        for _ in range(TRIES):
            began = time.process_time()
            traffic = nic.run(arrivals)
            run_seconds.append(time.process_time() - began)
            loop_seconds.append(transport.loop_seconds)
            writes = writes or list(transport.writes)
    taken = sorted(packet.finished - packet.started for packet in traffic.packets if packet.cpu is not None)
    return Run(
        name, packets, traffic.clocks, traffic.instructions, taken[len(taken) // 2], min(loop_seconds),
        min(run_seconds), writes,
    )  # fmt: skip


def programs(say: build.Say, options: DeviceOptions = DEFAULT) -> list[Run]:
    """Every firmware program that the NIC takes."""
    runs = []
    for path in sorted(PROGRAMS.glob("*.bpf.c")):
        with suppress(BpfnicError):
            runs.append(run(path.name.removesuffix(".bpf.c"), say, options=options))
    return runs


def full_lines(cores: int, say: build.Say) -> Run:
    """`firewall` on so many cores, with packets back to back into as many ports."""
    return run("firewall", say, interfaces=cores, options=DeviceOptions(threads=THREADS, cores=cores))


def on_board(name: str, say: build.Say) -> list[Run]:
    """The same on a board's NIC, but with two ports, which what forwards needs."""
    nic = CATALOGUE[name].nic
    sizes = {each.name: nic[each.name] for each in fields(DeviceOptions) if each.name in nic and each.name != "ports"}
    return programs(say, DeviceOptions(**sizes))


def with_and_without_cocotb(say: build.Say, interfaces: int, packets: int = 300) -> tuple[float, float]:
    """Clocks a second of the native loop and of cocotb (with cocotbext-axi's sources and sinks) with the same netlist,
    registers and packets, into the first interfaces in turn; processor time, of each the quickest of several tries."""
    measured = run("counter", say, interfaces=interfaces)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = {"writes": measured.writes, "frame": FRAME.hex(), "packets": packets, "interfaces": interfaces}
        (folder / "job.json").write_text(json.dumps(job))
        design = build.netlist(NicConfig(threads=THREADS, trace=True), say)
        runner.simulator(design, say)
        rates = []
        for _ in range(TRIES):
            runner.run(design, "bench.touch", folder, BENCH_FOLDER=str(folder), COCOTB_LOG_LEVEL="WARNING")
            result = json.loads((folder / "result.json").read_text())
            rates.append(result["clocks"] / result["seconds"])
    return measured.clocks_a_second, max(rates)


def build_seconds(say: build.Say) -> dict[str, float]:
    """Processor time of each step from sources to a compiled NIC in an empty cache, and of finding it in a full one."""
    steps: list[tuple[str, float]] = []

    def step(text: str) -> None:
        say(text)
        steps.append((text, sum(os.times()[:4])))  # this process and its children

    config = NicConfig(threads=THREADS, trace=True)
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        try:
            build.library(build.netlist(config, step), say=step)
            step("finding it in the cache")
            build.library(build.netlist(config, step), say=step)
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before
    steps.append(("", sum(os.times()[:4])))
    return {text: after - now for (text, now), (_, after) in zip(steps, steps[1:], strict=False)}
