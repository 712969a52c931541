"""Did a device do what the reference does? Packets, then counters, then maps: the first difference.

A device whose clock, random numbers, CPUs and order of shared accesses were recorded is compared with the golden model
replaying that recording: everything must be equal. The kernel and a card record nothing and run one packet at a time;
they are compared with the golden model on one CPU, in what both have: the verdict (of the kernel) or the cause (of a
card), what became of the frame, maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from bpfnic.host.device import Arrival, Capabilities, Pacing, PacketResult, Recording, Traffic
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

MapContents = dict[str, dict[bytes, list[bytes]]]
"""For each map its entries, a value for each CPU (or one)."""


@dataclass(frozen=True)
class Ended:
    """Packets whose program a device ended for one `cause` at one instruction: how many, and the number of the first
    arrival among them; the program, number and `text` of the instruction in it, and its line of C, "" for none."""

    cause: Cause
    packets: int
    first: int
    program: str
    instruction: int
    text: str
    source: str


@dataclass(frozen=True)
class Evidence:
    """What one device did: its name, what it has, the run, counters that began at 0, and all maps afterwards. `lost`:
    for each map of records how many were lost. `trace`: what programs printed. `verdicts`: the names of its programs'.
    `ended`: where programs were.
    """

    device: str
    capabilities: Capabilities
    traffic: Traffic
    counters: dict[str, int | list[int]]
    maps: MapContents
    lost: dict[str, int] = field(default_factory=dict)
    trace: Sequence[str] = ()
    verdicts: type[IntEnum] | None = XdpAction
    ended: Sequence[Ended] = ()


@dataclass(frozen=True)
class Difference:
    """One difference: `what` it is in, both sides as text; `packet` is its number (from 0), or None."""

    what: str
    actual: str
    expected: str
    packet: int | None = None


def replayable(arrivals: Sequence[Arrival], traffic: Traffic, room: int) -> list[int]:
    """Numbers of the arrivals that the reference shall see: all but those that were refused because no buffer was
    free, which is the one refusal that depends on time. `room`: the longest frame in bytes."""
    return [
        number
        for number, (arrival, packet) in enumerate(zip(arrivals, traffic.packets, strict=True))
        if packet.accepted or arrival.error or not 14 <= len(arrival.data) <= room
    ]


def part_of(recording: Recording, numbers: Sequence[int]) -> Recording:
    """The recording of just these arrivals and of the clones, numbered anew."""
    kept = [*numbers, *range(len(recording.executions) - len(recording.clones), len(recording.executions))]
    renumbered = {number: new for new, number in enumerate(kept)}
    return Recording(
        executions=[recording.executions[number] for number in kept],
        shared=[renumbered[number] if number >= 0 else number for number in recording.shared],
        clones=[renumbered[number] for number in recording.clones],
    )


def compare(
    actual: Evidence, expected: Evidence, arrivals: Sequence[Arrival], numbers: Sequence[int], pacing: Pacing
) -> Difference | None:
    """The first difference between a device and the reference that replayed its recording, which ran the arrivals
    `numbers`: in packets, in the order of each pair of interfaces, in counters, in maps."""
    counters = {name: list(value) if isinstance(value, list) else value for name, value in expected.counters.items()}
    for number in sorted(set(range(len(arrivals))) - set(numbers)):
        _count(counters, arrivals[number].interface, {"RECEIVED": 1, "REFUSED_FULL": 1})
        _count(counters, arrivals[number].interface, {"RECEIVED_BYTES": len(arrivals[number].data)})
    ours = actual.traffic
    pairs = [(number, "", ours.packets[number], wanted)
             for number, wanted in zip(numbers, expected.traffic.packets, strict=True)]  # fmt: skip
    if len(ours.clones) != len(expected.traffic.clones):
        return Difference("clones", str(len(ours.clones)), str(len(expected.traffic.clones)))
    pairs += [(ours.origin(len(ours.packets) + clone), f"clone {clone}, ", ours.clones[clone], wanted)
              for clone, wanted in enumerate(expected.traffic.clones)]  # fmt: skip
    for number, which, packet, wanted in pairs:
        if not pacing.lossless and wanted.data is not None and wanted.egress is not None and packet.data is None:
            _count(counters, wanted.egress, {"SENT": -1, "SENT_BYTES": -len(wanted.data), "EGRESS_DROPPED": 1})
            packet = replace(packet, egress=wanted.egress, queue=wanted.queue, data=wanted.data)
        fields = ("accepted", "verdict", "programs", "action", "cause", "stopped", "egress", "queue")
        if difference := _packet_difference(number, packet, wanted, fields, expected.verdicts):
            return replace(difference, what=which + difference.what)
    return (
        _order_difference(actual.traffic, arrivals)
        or _counter_difference(actual.counters, counters)
        or _map_difference(actual.maps, expected.maps)
        or _lost_difference(actual.lost, expected.lost)
    )


def compare_one_by_one(actual: Evidence, expected: Evidence) -> Difference | None:
    """The first difference between a device that records nothing and the reference, each having run the packets one by
    one. A card's first CPU does what the reference's only one does; what the others have of per-CPU maps is zeros."""
    for number, (packet, wanted) in enumerate(zip(actual.traffic.packets, expected.traffic.packets, strict=True)):
        which = ("verdict", "programs") if packet.told else ("cause",)
        fields = ("accepted", *which, "action", "egress", "queue")
        if difference := _packet_difference(number, packet, wanted, fields, expected.verdicts):
            return difference
    maps = {name: _as_many(entries, expected.maps[name]) for name, entries in actual.maps.items()}
    return _map_difference(actual.maps, maps)


def _as_many(actual: dict[bytes, list[bytes]], expected: dict[bytes, list[bytes]]) -> dict[bytes, list[bytes]]:
    """What is expected, with zeros for the values that `actual` has beyond them."""
    copies = max((len(values) for values in actual.values()), default=1)
    return {key: [*values, *[bytes(len(values[0]))] * (copies - len(values))] for key, values in expected.items()}


def _packet_difference(
    number: int, packet: PacketResult, wanted: PacketResult, fields: Sequence[str], verdicts: type[IntEnum] | None
) -> Difference | None:
    if wanted.note:
        return Difference("what its program asked for", "as recorded", wanted.note, number)
    for name in fields:
        ours, theirs = getattr(packet, name), getattr(wanted, name)
        if ours != theirs:
            if name == "verdict" and verdicts:
                ours, theirs = (verdicts(r0) if r0 in tuple(verdicts) else r0 for r0 in (ours, theirs))
            return Difference(name, _text(ours), _text(theirs), number)
    if packet.data == wanted.data:
        return None
    ours, theirs = packet.data or b"", wanted.data or b""
    for offset, (left, right) in enumerate(zip(ours, theirs, strict=False)):
        if left != right:
            return Difference(f"byte {offset}", f"0x{left:02x}", f"0x{right:02x}", number)
    return Difference("length", f"{len(ours)} bytes", f"{len(theirs)} bytes", number)


def _text(value: object) -> str:
    """A field of a result for people: enumerations by name, with their number; of programs where they ran."""
    if isinstance(value, tuple):
        ran = (f"{each.hook.value} of interface {each.device}: {each.verdict}" for each in value)
        return "; ".join(ran) or "none"
    if isinstance(value, IntEnum):
        return f"{value.name} ({int(value)})"
    return "none" if value is None else str(value)


def _order_difference(traffic: Traffic, arrivals: Sequence[Arrival]) -> Difference | None:
    """Frames of one ingress must leave an egress in the order in which they came, and clones in that in which they were
    made."""
    last: dict[tuple[int, int], int] = {}
    newest: dict[int, int] = {}
    for departure in traffic.departures:
        if departure.clone is not None:
            if departure.clone < newest.get(departure.egress, -1):
                what = f"order of clones to interface {departure.egress}"
                clones = f"behind clone {newest[departure.egress]}", f"clone {departure.clone} before it"
                return Difference(what, *clones, departure.arrival)
            newest[departure.egress] = departure.clone
            continue
        pair = (arrivals[departure.arrival].interface, departure.egress)
        if departure.arrival < last.get(pair, -1):
            what = f"order from interface {pair[0]} to interface {pair[1]}"
            return Difference(what, f"after packet {last[pair]}", "before it", departure.arrival)
        last[pair] = departure.arrival
    return None


def _count(counters: dict[str, int | list[int]], interface: int, changes: dict[str, int]) -> None:
    for name, change in changes.items():
        values = counters[name]
        assert isinstance(values, list)
        values[interface] += change


def _counter_difference(actual: dict[str, int | list[int]], expected: dict[str, int | list[int]]) -> Difference | None:
    for name, values in actual.items():
        if name != "CLOCKS" and values != expected[name]:
            return Difference(f"counter {name}", str(values), str(expected[name]))
    return None


def _map_difference(actual: MapContents, expected: MapContents) -> Difference | None:
    for name, entries in actual.items():
        if entries == expected[name]:
            continue
        for key in sorted(entries.keys() | expected[name].keys()):
            ours, theirs = entries.get(key), expected[name].get(key)
            if ours is None or theirs is None:
                return Difference(f"map {name}, key {_hex(key)}", _present(ours), _present(theirs))
            for cpu, (left, right) in enumerate(zip(ours, theirs, strict=True)):
                if left != right:
                    where = f", CPU {cpu}" if len(ours) > 1 else ""
                    return Difference(f"map {name}, key {_hex(key)}{where}", _hex(left), _hex(right))
    return None


def _lost_difference(actual: dict[str, int], expected: dict[str, int]) -> Difference | None:
    for name, count in actual.items():
        if count != expected[name]:
            return Difference(f"records lost by map {name}", str(count), str(expected[name]))
    return None


def _hex(data: bytes) -> str:
    return data.hex(" ")


def _present(values: list[bytes] | None) -> str:
    return "no entry" if values is None else _hex(values[0])
