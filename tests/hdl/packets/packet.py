"""What must become of a packet, as the kernel has it. Knows nothing of the hardware but its sizes."""

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent, Region, Service
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

STACK, CONTEXT, PACKET = (region.value for region in Region)
REDIRECT, ADJUST_HEAD, ADJUST_TAIL, REDIRECT_MAP = (service.value for service in Service)
EINVAL = (1 << 64) - 22


class Packet:
    """A packet and its thread's memories, as the kernel's functions would leave them."""

    def __init__(self, config: NicConfig, frame: bytes, ingress: int, ifindexes: list[int]):
        self.config, self.ingress, self.ifindexes = config, ingress, ifindexes
        self.bytes = bytearray(config.buffer_bytes)
        self.data = addresses.HEADROOM
        self.data_end = self.data + len(frame)
        self.bytes[self.data : self.data_end] = frame
        self.stack = bytearray(addresses.STACK_WINDOW_BYTES)
        self.target: int | None = None  # the interface
        self.queue = 0

    def context(self) -> bytes:
        words = [addresses.PACKET + self.data, addresses.PACKET + self.data_end, addresses.PACKET + self.data]
        words += [self.ifindexes[self.ingress], 0, 0]
        return b"".join(word.to_bytes(4, "little") for word in words).ljust(addresses.CONTEXT_BYTES, b"\0")

    def load(self, region: int, offset: int, size: int) -> int:
        memory = {STACK: self.stack, CONTEXT: self.context(), PACKET: self.bytes}[region]
        return int.from_bytes(memory[offset : offset + (1 << size)], "little")

    def store(self, region: int, offset: int, size: int, value: int) -> None:
        memory = {STACK: self.stack, PACKET: self.bytes}[region]
        count = 1 << size
        memory[offset : offset + count] = (value & (1 << 8 * count) - 1).to_bytes(count, "little")

    def serve(self, service: int, a: int, b: int) -> int:
        if service == REDIRECT:
            if b:
                return XdpAction.XDP_ABORTED
            ifindex, ports = a & 0xFFFF_FFFF, self.ifindexes[: self.config.ports]
            self.target, self.queue = ports.index(ifindex) if ifindex and ifindex in ports else None, 0
            return XdpAction.XDP_REDIRECT
        if service == REDIRECT_MAP:
            return self._redirect_map(a & 1, a & 2, a >> 8 & 0xFF, b)
        delta = (b & 0xFFFF_FFFF) - ((b & 0x8000_0000) << 1)
        if service == ADJUST_HEAD:
            moved = self.data + delta
            if moved < addresses.FRAME_HEADER or moved > self.data_end - addresses.ETH_HLEN:
                return EINVAL
            self.data = moved
            return 0
        moved = self.data_end + delta
        if moved > addresses.data_hard_end(self.config.buffer_bytes) or moved < self.data + addresses.ETH_HLEN:
            return EINVAL
        self.bytes[self.data_end : max(moved, self.data_end)] = bytes(max(delta, 0))
        self.data_end = moved
        return 0

    def _redirect_map(self, taken: int, to_queue: int, number: int, flags: int) -> int:
        if flags & ~(3 if to_queue else 3 | 1 << 4):  # XDP_ABORTED..XDP_TX, BPF_F_EXCLUDE_INGRESS
            return XdpAction.XDP_ABORTED
        self.target, self.queue = None, 0
        if not taken:
            return flags & 3
        if to_queue:
            self.target, self.queue = self.config.ports, number % 64
        elif number < self.config.ports:
            self.target = number
        return XdpAction.XDP_REDIRECT

    def leaves(self, verdict: int, cause: int) -> tuple:
        """(event, egress or None, bytes, action and above its four bits the queue, cause)."""
        here = bytes(self.bytes[self.data : self.data_end])
        if cause:
            return IngressEvent.ABORTED, None, here, None, cause
        if verdict == XdpAction.XDP_PASS:
            return IngressEvent.PASSED, self.config.ports, here, verdict, 0
        if verdict == XdpAction.XDP_TX:
            return IngressEvent.TRANSMITTED, self.ingress, here, verdict, 0
        if verdict == XdpAction.XDP_REDIRECT and self.target is not None:
            return IngressEvent.REDIRECTED, self.target, here, verdict | self.queue << 4, 0
        if verdict == XdpAction.XDP_DROP:
            return IngressEvent.DROPPED, None, here, None, 0
        cause = {0: Cause.PROGRAM, XdpAction.XDP_REDIRECT: Cause.REDIRECT}.get(verdict, Cause.VERDICT)
        return IngressEvent.ABORTED, None, here, None, cause
