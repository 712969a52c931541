#!/usr/bin/env python3
"""Makes firmware/samples/mixed.pcapng: real programs talk across two network namespaces, and the wire is recorded.

    client namespace                    this script                     server namespace
      ping, dig, curl  ── tap ──▶ interface 0 ┐ ┌ interface 0 ── tap ──▶  dnsmasq, http.server
                       ◀── tap ── interface 1 ┘ └ interface 1 ◀── tap ──

Each side has three links: plain Ethernet, one in VLAN 42, and one in VLAN 42 within the service VLAN 100 (802.1ad). The
script is the wire and the two access switches at its ends: it pads frames to 60 bytes, puts the tags on, writes the
frame down as it is on the wire, and takes the tags off again. What comes from the client is recorded on interface
`port0`, what comes from the server on `port1`: where a NIC between the two would receive them. A tap hands over frames
whose checksums the kernel has computed, and nothing longer than the link's MTU.

Run as root on Linux with iproute2, iputils-ping, bind9-dnsutils, dnsmasq-base and curl installed:

    .venv/bin/python tools/make_capture.py [OUTPUT]
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bpfnic.host.linux.namespace import Namespace
from bpfnic.host.pcap import Capture, Interface, Packet, write

OUTPUT = Path(__file__).parent.parent / "firmware" / "samples" / "mixed.pcapng"
LONGEST = 1514  # bytes of a frame, tags included

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


@dataclass(frozen=True)
class Link:
    """A link of both namespaces. Addresses are of the blocks for documentation (RFC 5737, RFC 3849)."""

    name: str
    tags: bytes  # as they stand behind the source address
    net4: str
    net6: str

    def set_up(self, side: Namespace, host: int) -> int:
        """Makes the tap of one side, `host` being the last number of its addresses; its file descriptor."""

        def enter() -> int:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", self.name.encode(), _IFF_TAP | _IFF_NO_PI))
            return tap

        tap = side.call(enter)
        mtu = LONGEST - 14 - len(self.tags)
        mac = f"02:00:00:00:{len(self.tags):02x}:{host:02x}"
        run(side, "ip", "link", "set", self.name, "address", mac, "mtu", str(mtu), "up")
        run(side, "ip", "address", "add", f"{self.net4}.{host}/24", "dev", self.name)
        run(side, "ip", "address", "add", f"{self.net6}::{host}/64", "dev", self.name, "nodad")
        return tap


LINKS = (
    Link("plain", b"", "192.0.2", "2001:db8:0"),
    Link("vlan", bytes.fromhex("8100 002a"), "198.51.100", "2001:db8:42"),
    Link("service", bytes.fromhex("88a8 0064 8100 002a"), "203.0.113", "2001:db8:100"),
)
CLIENT, SERVER = 1, 2


class Wire(threading.Thread):
    """Carries frames between the taps of each link until `stop`, and keeps them in `packets`."""

    def __init__(self, taps: list[tuple[Link, int, int]]):
        super().__init__(name="wire")
        self.packets: list[Packet] = []
        self._stopped = threading.Event()
        self._selector = selectors.DefaultSelector()
        for link, client, server in taps:
            self._selector.register(client, selectors.EVENT_READ, (link, 0, server))
            self._selector.register(server, selectors.EVENT_READ, (link, 1, client))

    def run(self) -> None:
        while not self._stopped.is_set():
            for key, _ in self._selector.select(timeout=0.1):
                link, interface, other = key.data
                frame = os.read(key.fd, 65536).ljust(60, b"\0")
                tagged = frame[:12] + link.tags + frame[12:]
                self.packets.append(Packet(time.time_ns(), tagged, interface))
                with contextlib.suppress(OSError):  # the other side is not up yet: the frame is lost, as on a wire
                    os.write(other, frame)

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def run(side: Namespace, *command: str, fails: bool = False) -> None:
    """Runs a program inside and waits for it; it must succeed, or fail if it is meant to."""
    result = side.call(subprocess.run, command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if bool(result.returncode) != fails:
        raise SystemExit(f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}")


def start(side: Namespace, command: list[str]) -> subprocess.Popen[bytes]:
    """Starts a program inside."""
    null = subprocess.DEVNULL
    return side.call(lambda: subprocess.Popen(command, stdin=null, stdout=null, stderr=null))


@contextlib.contextmanager
def servers(side: Namespace) -> Iterator[None]:
    """dnsmasq and Python's http.server, running while the block does."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, "index.html").write_text("<h1>It works on the card, too.</h1>\n")
        Path(folder, "big.txt").write_text("".join(f"line {n} of a page of several segments\n" for n in range(280)))
        records = [
            f"--host-record=www.example.test,{LINKS[0].net4}.{SERVER},{LINKS[0].net6}::{SERVER}",
            "--txt-record=long.example.test," + ",".join(f"{n:03d}" * 80 for n in range(9)),
            "--mx-host=example.test,www.example.test",
        ]
        dns = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--log-facility=-",
        ]
        web = [sys.executable, "-m", "http.server", "80", "--bind", "::", "--directory", folder]
        dns += ["--local=/example.test/", "--edns-packet-max=4096", *records]
        running = [start(side, command) for command in (dns, web)]
        try:
            for port in (53, 80):
                side.call(wait_for_port, port)
            yield
        finally:
            for process in running:
                process.terminate()
                process.wait()


def wait_for_port(port: int) -> None:
    """Returns once something listens there, on the loopback link."""
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def query_with_options(family: int, address: str) -> None:
    """Asks for www.example.test in a datagram whose IP header carries options (extension headers, for IPv6)."""
    name = b"".join(bytes([len(label)]) + label for label in (b"www", b"example", b"test", b""))
    with socket.socket(family, socket.SOCK_DGRAM) as query:
        query.settimeout(2)
        if family == socket.AF_INET:
            query.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, bytes([7, 11, 4, *bytes(8), 0]))  # record route
        else:
            padding = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # next header, length, PadN of six bytes
            query.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, padding)
            query.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, padding)
        query.sendto(
            struct.pack(">HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1), (address, 53)
        )
        query.recv(4096)


def talk(client: Namespace) -> None:
    """Everything that the client says, to addresses of the server."""
    for link in LINKS:
        four, six = f"{link.net4}.{SERVER}", f"{link.net6}::{SERVER}"
        for address, url in ((four, f"http://{four}"), (six, f"http://[{six}]")):
            run(client, "ping", "-c", "2", "-i", "0.2", address)
            run(client, "ping", "-c", "1", "-s", "3500", address)  # in fragments
            for kind in ("A", "AAAA"):
                run(client, "dig", f"@{address}", "www.example.test", kind)
            run(client, "curl", "--silent", "--fail", f"{url}/")
            run(client, "curl", "--silent", "--fail", f"{url}/big.txt")
            run(client, "curl", "--silent", f"{url}:23", fails=True)  # answered with a reset
        client.call(query_with_options, socket.AF_INET, four)
        client.call(query_with_options, socket.AF_INET6, six)
    four, six = f"{LINKS[0].net4}.{SERVER}", f"{LINKS[0].net6}::{SERVER}"
    run(client, "ping", "-c", "2", "-i", "0.2", "-R", four)  # record route
    run(client, "ping", "-c", "2", "-i", "0.2", "-T", "tsonly", four)
    run(client, "dig", f"@{four}", "nowhere.example.test")
    run(client, "dig", f"@{four}", "+bufsize=4096", "long.example.test", "TXT")  # the answer comes in fragments
    run(client, "dig", f"@{six}", "+tcp", "long.example.test", "TXT")
    run(client, "dig", f"@{four}", "-p", "5353", "+tries=1", "+time=1", "example.test", fails=True)  # port unreachable
    run(client, "curl", "--silent", "--head", f"http://{four}/")
    run(client, "curl", "--silent", f"http://{four}:6379", fails=True)
    time.sleep(1)  # the last acknowledgements and neighbour solicitations


def main() -> None:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    client, server = Namespace(), Namespace()
    wire = Wire([(link, link.set_up(client, CLIENT), link.set_up(server, SERVER)) for link in LINKS])
    run(server, "ip", "link", "set", "lo", "up")
    wire.start()
    try:
        with servers(server):
            talk(client)
    finally:
        wire.stop()
        client.close()
        server.close()
    write(output, Capture([Interface("port0"), Interface("port1")], wire.packets))
    print(f"{output}: {len(wire.packets)} packets, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
