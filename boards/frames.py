"""Frames to a card and from it over the wire, one at a time, and what the card's counters say became of each."""

import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

from bpfnic.boards.batch import Batch
from bpfnic.host.device import Arrival, PacketResult
from bpfnic.spec import card
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import QUEUE_USER_BIT
from bpfnic.spec.programs import XdpAction
from bpfnic.spec.registers import BY_NAME
from bpfnic.spec.rings import EVENT_USER_BIT

PATIENCE = 5.0
"""Seconds that a frame may take through a NIC."""
_OUTCOMES = {
    "DROPPED": XdpAction.XDP_DROP,
    "PASSED": XdpAction.XDP_PASS,
    "TRANSMITTED": XdpAction.XDP_TX,
    "REDIRECTED": XdpAction.XDP_REDIRECT,
    "ABORTED": XdpAction.XDP_ABORTED,
}
_REFUSALS = ("REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR")
_INGRESS = ("RECEIVED", "RECEIVED_BYTES", *_REFUSALS, *_OUTCOMES, "IN_FLIGHT")  # one register behind the other
_EGRESS = ("SENT", "SENT_BYTES", "EGRESS_DROPPED")
_ROUTE, _INJECT_DATA, _INJECT = (card.BY_NAME[name].address() for name in ("ROUTE", "INJECT_DATA", "INJECT"))
_CAPTURED, _CAPTURE_DATA, _RELEASE = (card.BY_NAME[name].address() for name in ("CAPTURED", "CAPTURE_DATA", "RELEASE"))
_PAUSE = 400
"""Accesses that do nothing, some 8 clocks each, behind a frame: most are through then, and one request will do."""

Count = tuple[str, int]
"""A counter: its register and index."""


class Frame(NamedTuple):
    """A frame that left: the interface, and user bits as of hdl.interfaces Beat."""

    interface: int
    user: int
    data: bytes


class FrameWire:
    """The frames of a card whose ports all go to the wire."""

    def __init__(self, name: str, batch: Batch, ports: int):
        self._name, self._batch, self._ports = name, batch, ports
        self._clones = ports + 1
        ingresses = [(name, ingress) for ingress in range(ports + 2) for name in _INGRESS]
        self._before = self._read([*ingresses, *self._of_egresses()])[0]
        self._causes = self._read_causes()

    def send(self, number: int, arrival: Arrival) -> tuple[PacketResult, list[Frame]]:
        """Arrival `number`: what became of it, and what left until nothing of it was in the NIC. Raises BpfnicError:
        the wire doesn't take such a frame, it stays in the NIC, or it was cloned."""
        self._inject(number, arrival)
        counted = [*((name, arrival.interface) for name in _INGRESS),
                   *((name, self._clones) for name in ("RECEIVED", "IN_FLIGHT")), *self._of_egresses()]  # fmt: skip
        frames: list[Frame] = []
        end = time.monotonic() + PATIENCE
        while True:
            after, captured = self._read(counted)
            frames += self._captured(captured)
            change = {count: (after[count] - self._before[count]) % (1 << 32) for count in after}
            if self._gone(arrival.interface, after, change):
                break
            if time.monotonic() > end:
                raise BpfnicError(f"{self._name}: packet {number} does not leave the NIC")
        self._before |= after
        return self._result(arrival.interface, change, frames), frames

    def rest(self) -> list[Frame]:
        """What left since: records may come behind the frame that they are about."""
        return self._captured(*self._batch.read([_CAPTURED]))

    def _inject(self, number: int, arrival: Arrival) -> None:
        length = len(arrival.data)
        if not 0 < length <= card.LONGEST_INJECTED:
            raise BpfnicError(f"packet {number} has {length} bytes; {self._name} takes 1 to {card.LONGEST_INJECTED}")
        data = arrival.data[: card.FRAME_BYTES]
        for word in struct.unpack(f"<{-(-len(data) // 4)}I", data + bytes(-len(data) % 4)):
            self._batch.write(_INJECT_DATA, word)
        user = arrival.error | arrival.egress << 1
        word = length | arrival.interface << card.INJECT_INTERFACE_BIT | user << card.INJECT_USER_BIT
        self._batch.write(_INJECT, word)
        for _ in range(_PAUSE):
            self._batch.write(_ROUTE, (1 << self._ports) - 1)

    def _of_egresses(self) -> list[Count]:
        return [*((name, egress) for egress in range(self._ports + 1) for name in _EGRESS), ("RETIRED", 0)]

    def _read(self, counts: list[Count]) -> tuple[dict[Count, int], int]:
        """Counters, all of one clock, and CAPTURED behind them."""
        self._batch.write(BY_NAME["SNAPSHOT"].address(), 0)
        *values, captured = self._batch.read([*(BY_NAME[name].address(index) for name, index in counts), _CAPTURED])
        return dict(zip(counts, values, strict=True)), captured

    def _read_causes(self) -> list[int]:
        return self._batch.read([BY_NAME["CAUSES"].address(cause) for cause in Cause])

    def _captured(self, what: int) -> list[Frame]:
        """The frame that CAPTURED tells of, if any, and those behind it, read."""
        frames, data = [], b""
        while what & card.CAPTURED_VALID:
            length = what & card.CAPTURED_LENGTH
            reads = [_CAPTURE_DATA] * -(-length // 4)
            words = self._batch.read(reads)
            self._batch.write(_RELEASE, 0)
            data += struct.pack(f"<{len(words)}I", *words)[:length]
            if not what & card.CAPTURED_MORE:
                interface = what >> card.CAPTURED_INTERFACE_BIT & card.CAPTURED_INTERFACE_MASK
                frames.append(Frame(interface, what >> card.CAPTURED_USER_BIT & card.CAPTURED_USER_MASK, data))
                data = b""
            (what,) = self._batch.read([_CAPTURED])
        return frames

    def _gone(self, ingress: int, after: dict[Count, int], change: dict[Count, int]) -> bool:
        """Whether it has ended at the ingress, nothing of it is in flight, and what goes out has gone."""
        if not change["RECEIVED", ingress] or after["IN_FLIGHT", ingress] or after["IN_FLIGHT", self._clones]:
            return False
        leaves = _total(change, ("PASSED", "TRANSMITTED", "REDIRECTED"))
        return bool(change["RECEIVED", self._clones]) or leaves == _total(change, ("SENT", "EGRESS_DROPPED"))

    def _result(self, ingress: int, change: dict[Count, int], frames: list[Frame]) -> PacketResult:
        if change["RECEIVED", self._clones]:
            raise BpfnicError(f"{self._name} can't tell what became of a packet and what of its clones")
        if any(change[name, ingress] for name in _REFUSALS):
            return PacketResult(accepted=False, told=False)
        action = next(action for name, action in _OUTCOMES.items() if change[name, ingress])
        result = PacketResult(accepted=True, action=action, instructions=change["RETIRED", 0], told=False)
        if action is XdpAction.XDP_ABORTED:
            causes = self._read_causes()
            result.cause = next(cause for cause in Cause if causes[cause] != self._causes[cause])
            self._causes = causes
        for frame in frames:
            if not frame.user >> EVENT_USER_BIT:
                result.egress, result.data = frame.interface, frame.data
                queue = frame.user >> QUEUE_USER_BIT
                if frame.interface == self._ports and (queue or action is XdpAction.XDP_REDIRECT):
                    result.queue = queue
        return result


def _total(change: dict[Count, int], names: Iterable[str]) -> int:
    return sum(value for (name, _), value in change.items() if name in names)
