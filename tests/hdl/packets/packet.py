"""What must become of a packet, as the kernel has it. Knows nothing of the hardware but its sizes."""

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent, Region, Service
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

STACK, CONTEXT, PACKET, SKB = (region.value for region in Region)
SKB_WORDS = 512  # where they begin behind the stack
LIVE = (0, 36, 40, 76, 80, 140)  # len, ingress_ifindex, ifindex, data, data_end, data_meta
HALVES = (12, 44, 72)  # queue_mapping, tc_index, tc_classid of struct __sk_buff: 16 bits are kept
REDIRECT, ADJUST_HEAD, ADJUST_TAIL, REDIRECT_MAP, ADJUST_META, *_ = (service.value for service in Service)
EINVAL, EACCES = (1 << 64) - 22, (1 << 64) - 13


class Packet:
    """A packet and its thread's memories, as the kernel's functions would leave them."""

    def __init__(self, config: NicConfig, frame: bytes, ingress: int, ifindexes: list[int], of_tc: bool = False):
        self.config, self.ingress, self.ifindexes, self.of_tc = config, ingress, ifindexes, of_tc
        self.bytes = bytearray(config.buffer_bytes)
        self.meta = self.data = addresses.HEADROOM
        self.data_end = self.data + len(frame)
        self.bytes[self.data : self.data_end] = frame
        self.stack = bytearray(addresses.STACK_WINDOW_BYTES)
        self.target: int | None = None  # the interface
        self.queue = 0  # that a redirect chose
        self.steered = 0  # that a write to rx_queue_index chose

    def context(self) -> bytes:
        words = [addresses.PACKET + self.data, addresses.PACKET + self.data_end, addresses.PACKET + self.meta]
        words += [self.ifindexes[self.ingress], self.steered, 0]
        return b"".join(word.to_bytes(4, "little") for word in words).ljust(addresses.CONTEXT_BYTES, b"\0")

    def skb(self) -> bytes:
        """The stack's window with struct __sk_buff behind the stack."""
        window = bytearray(self.stack)
        ifindex, data = self.ifindexes[self.ingress], addresses.PACKET + self.data
        end, meta = addresses.PACKET + self.data_end, addresses.PACKET + self.meta
        live = self.data_end - self.data, ifindex, ifindex, data, end, meta
        for offset, value in zip(LIVE, live, strict=True):
            window[SKB_WORDS + offset : SKB_WORDS + offset + 4] = value.to_bytes(4, "little")
        return bytes(window)

    def load(self, region: int, offset: int, size: int) -> int:
        memory = {STACK: self.stack, CONTEXT: self.context(), PACKET: self.bytes, SKB: self.skb()}[region]
        return int.from_bytes(memory[offset : offset + (1 << size)], "little")

    def store(self, region: int, offset: int, size: int, value: int) -> None:
        if region == CONTEXT:
            self.steered = value & 0xFFFFFFFF if value & 0xFFFFFFFF < 64 else self.steered
            return
        memory = {STACK: self.stack, PACKET: self.bytes, SKB: self.stack}[region]
        count = 1 << size
        memory[offset : offset + count] = (value & (1 << 8 * count) - 1).to_bytes(count, "little")
        if region == SKB:
            for half in HALVES:
                memory[SKB_WORDS + half + 2 : SKB_WORDS + half + 4] = bytes(2)

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
            moved, metadata = self.data + delta, bytes(self.bytes[self.meta : self.data])
            if moved - len(metadata) < addresses.FRAME_HEADER or moved > self.data_end - addresses.ETH_HLEN:
                return EINVAL
            self.data, self.meta = moved, moved - len(metadata)
            self.bytes[self.meta : self.data] = metadata
            return 0
        if service == ADJUST_META:
            moved = self.meta + delta
            if moved < addresses.FRAME_HEADER or moved > self.data:
                return EINVAL
            if (self.data - moved) % 4 or self.data - moved > 255:
                return EACCES
            self.meta = moved
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
        if self.of_tc:
            return self._leaves_tc(verdict, here)
        if verdict == XdpAction.XDP_PASS:
            return IngressEvent.PASSED, self.config.ports, here, verdict | self.steered << 4, 0
        if verdict == XdpAction.XDP_TX:
            return IngressEvent.TRANSMITTED, self.ingress, here, verdict, 0
        if verdict == XdpAction.XDP_REDIRECT and self.target is not None:
            return IngressEvent.REDIRECTED, self.target, here, verdict | self.queue << 4, 0
        if verdict == XdpAction.XDP_DROP:
            return IngressEvent.DROPPED, None, here, None, 0
        cause = {0: Cause.PROGRAM, XdpAction.XDP_REDIRECT: Cause.REDIRECT}.get(verdict, Cause.VERDICT)
        return IngressEvent.ABORTED, None, here, None, cause

    def _leaves_tc(self, verdict: int, here: bytes) -> tuple:
        if verdict in (2, 4, 8):  # TC_ACT_SHOT, _STOLEN, _TRAP
            return IngressEvent.DROPPED, None, here, None, 0
        if verdict != 7:  # TC_ACT_REDIRECT
            return IngressEvent.PASSED, self.config.ports, here, XdpAction.XDP_PASS, 0
        if self.target is None:
            return IngressEvent.ABORTED, None, here, None, Cause.REDIRECT
        return IngressEvent.REDIRECTED, self.target, here, XdpAction.XDP_REDIRECT | self.queue << 4, 0
