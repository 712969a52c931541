"""Runs a socket filter in the running kernel: on a packet socket (packet(7), SOCK_RAW) where a frame arrives.

The link is one end of a veth pair, and the frame is sent from the other end, so that the kernel's whole receive path
lies in between: the filter sees the packet from its MAC header on, with its VLAN tag in `vlan_tci`. What the filter
keeps is what the socket receives, and the tag comes beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
from pathlib import Path
from typing import Any

from bpfnic.host.linux.namespace import LOOPBACK, SPARE, Namespace, link_name

_ETH_P_ALL, _ETH_P_8021Q = 0x0003, 0x8100
SOL_PACKET, PACKET_AUXDATA, _PACKET_IGNORE_OUTGOING = 263, 8, 23  # linux/if_packet.h
_SO_ATTACH_BPF = 50  # asm-generic/socket.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU, _SIOCSIFHWADDR = 0x8913, 0x8914, 0x8922, 0x8924  # linux/sockios.h
_IFF_UP = 0x1
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772  # linux/if_arp.h
_MTU = 65_535  # the most that a veth takes: any frame of the device
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata
_TP_STATUS_VLAN_VALID, _TP_STATUS_VLAN_TPID_VALID = 1 << 4, 1 << 6
_TAG_AT = 12  # behind both addresses
_LONGEST = 1 << 16
_PATIENCE = 10.0  # s
_PROBE = bytes([0xFF] * 6 + [0] * 54)  # to all


def receive(wire: socket.socket, flags: int = 0) -> tuple[bytes, tuple[Any, ...]]:
    """The next frame at a packet socket with PACKET_AUXDATA, and its address. The kernel hands a VLAN tag over apart
    from it: it is in the frame again where what was kept reaches to its place."""
    frame, control, _, address = wire.recvmsg(_LONGEST, 64, flags)
    (auxdata,) = (data for level, kind, data in control if (level, kind) == (SOL_PACKET, PACKET_AUXDATA))
    status, *_, tci, tpid = _AUXDATA.unpack(auxdata)
    if status & _TP_STATUS_VLAN_VALID and len(frame) >= _TAG_AT:
        protocol = tpid if status & _TP_STATUS_VLAN_TPID_VALID else _ETH_P_8021Q
        frame = frame[:_TAG_AT] + struct.pack(">HH", protocol, tci) + frame[_TAG_AT:]
    return frame, address


class PacketSocket:
    """A link with `ifindex` and a packet socket at it, on CPU `cpu`. Raises OSError as the system calls do."""

    def __init__(self, ifindex: int, cpu: int):
        self._link = link_name(ifindex)
        self._sends = self._link if ifindex == LOOPBACK else link_name(SPARE)  # it hears itself
        self._namespace = Namespace([ifindex], cpu)
        self._kind = _ARPHRD_LOOPBACK if ifindex == LOOPBACK else _ARPHRD_ETHER
        self._address = b""
        try:
            self._namespace.call(self._open)
        except OSError:
            self._namespace.close()
            raise

    def _open(self) -> None:
        for name in {self._link, self._sends}:
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")  # it would send on its own
            self._configure(_SIOCSIFMTU, name, struct.pack("=i", _MTU))
            flags = struct.unpack_from("=H", self._configure(_SIOCGIFFLAGS, name, b""), 16)[0]
            self._configure(_SIOCSIFFLAGS, name, struct.pack("=H", flags | _IFF_UP))
        # Of all packet sockets at a link the newest gets a packet first: what the last one has, the filter has seen.
        self._last, self._socket = self._listening(), self._listening()
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind((self._sends, 0))
        self._begin()

    def _begin(self) -> None:
        """Waits for the link, which loses frames for a moment after it is up."""
        self._last.settimeout(0.01)
        for _ in range(int(_PATIENCE / 0.01)):
            self._sender.send(_PROBE)
            with contextlib.suppress(TimeoutError):
                self._last.recv(1)
                break
        self._last.settimeout(_PATIENCE)
        while select.select([self._socket], [], [], 0)[0]:
            self._socket.recv(1)

    def _listening(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        made.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        made.bind((self._link, _ETH_P_ALL))
        return made

    @staticmethod
    def _configure(request: int, name: str, value: bytes) -> bytes:
        """ioctl of a `struct ifreq`."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            return fcntl.ioctl(any_socket, request, struct.pack("16s24s", name.encode(), value))

    def run(self, fd: int, frame: bytes, mark: int = 0) -> bytes:
        """What the filter `fd` keeps of a frame with that mark, with the tag in it again where it reaches to the tag's
        place."""
        return self._namespace.call(self._run, fd, frame, mark)

    def _run(self, fd: int, frame: bytes, mark: int) -> bytes:
        if not frame[0] & 1 and frame[:6] != self._address:  # to one host: to this one
            self._address = frame[:6]
            address = struct.pack("=H6s", self._kind, self._address)
            self._configure(_SIOCSIFHWADDR, self._link, address)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, fd)
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        self._sender.send(frame)
        self._last.recv(1)
        try:
            return receive(self._socket, socket.MSG_DONTWAIT)[0]
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Gives sockets and link back."""
        for each in (self._sender, self._socket, self._last):
            each.close()
        self._namespace.close()
