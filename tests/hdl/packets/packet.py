"""What must become of a packet, as the kernel has it. Knows nothing of the hardware but its sizes."""

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent, Region, Service
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

STACK, CONTEXT, PACKET = (region.value for region in Region)
REDIRECT, ADJUST_HEAD, ADJUST_TAIL = (service.value for service in Service)
EINVAL = (1 << 64) - 22


class Packet:
    """A packet and its thread's memories, as the kernel's functions would leave them."""

    def __init__(self, config: NicConfig, frame: bytes, ingress: int, ifindexes: list[int]):
        self.config, self.ingress, self.ifindexes = config, ingress, ifindexes
        self.bytes = bytearray(config.buffer_bytes)
        self.data = addresses.HEADROOM
        self.data_end = self.data + len(frame)
        self.bytes[self.data : self.data_end] = frame
        self.stack = bytearray(addresses.STACK_BYTES)
        self.target: int | None = None

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
            self.target = a & 0xFFFF_FFFF
            return XdpAction.XDP_REDIRECT
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

    def leaves(self, verdict: int, cause: int) -> tuple:
        """(event, egress or None, bytes, action, cause)."""
        here, ports = bytes(self.bytes[self.data : self.data_end]), self.ifindexes[: self.config.ports]
        if cause:
            return IngressEvent.ABORTED, None, here, None, cause
        if verdict == XdpAction.XDP_PASS:
            return IngressEvent.PASSED, self.config.ports, here, verdict, 0
        if verdict == XdpAction.XDP_TX:
            return IngressEvent.TRANSMITTED, self.ingress, here, verdict, 0
        if verdict == XdpAction.XDP_REDIRECT and self.target and self.target in ports:
            return IngressEvent.REDIRECTED, ports.index(self.target), here, verdict, 0
        if verdict == XdpAction.XDP_DROP:
            return IngressEvent.DROPPED, None, here, None, 0
        cause = {0: Cause.PROGRAM, XdpAction.XDP_REDIRECT: Cause.REDIRECT}.get(verdict, Cause.VERDICT)
        return IngressEvent.ABORTED, None, here, None, cause
