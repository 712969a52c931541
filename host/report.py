"""What a run showed: as one JSON object, and as tables for people. The tables show what the JSON holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median_low
from typing import TYPE_CHECKING, Any, NamedTuple

from bpfnic.host.check import Ended, MapContents
from bpfnic.host.device import Arrival, Capabilities, Pacing, Traffic
from bpfnic.host.maps import MapDefinition
from bpfnic.host.nic import interface_name
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import EVENTS, REDIRECT_MAPS
from bpfnic.spec.programs import VERDICTS, Hook, XdpAction

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN_ENTRIES = 12
"""Entries of a map that the tables show; JSON has all that aren't zero."""

REFUSALS = {"REFUSED_FULL": "no free buffer", "REFUSED_LONG": "longer than the buffer", "REFUSED_ERROR": "bad or short"}


def describe_device(backend: str, capabilities: Capabilities) -> dict[str, Any]:
    """What the device says of itself."""
    return {
        "backend": backend,
        "engine": capabilities.engine,
        "cpus": capabilities.cpus,
        "ports": capabilities.ports,
        "program_slots": capabilities.program_slots,
        "map_bytes": capabilities.map_bytes,
        "buffer_bytes": capabilities.buffer_bytes,
    }


def describe_packets(
    arrivals: Sequence[Arrival], traffic: Traffic, counters: Mapping[str, Any], ports: int, ended: Sequence[Ended]
) -> dict[str, Any]:
    """How many packets came, how many clones programs made of them, and what became of them all: by verdict, those
    aborted by cause, and where programs were ended, those refused by reason."""
    packets = [*traffic.packets, *traffic.clones]
    causes = [packet.cause for packet in packets if packet.cause is not Cause.NONE]
    return {
        "received": len(arrivals),
        "cloned": len(traffic.clones),
        "verdicts": {
            action.name: count for action in XdpAction if (count := sum(packet.action is action for packet in packets))
        },
        "aborted": {cause.name: causes.count(cause) for cause in Cause if cause in causes},
        "ended": [asdict(each) | {"cause": each.cause.name} for each in ended],
        "refused": {
            reason: count
            for name, reason in REFUSALS.items()
            if (count := sum(counters.get(name, [0])[: ports + 1]))
        },
    }


def describe_attached(traffic: Traffic, places: Sequence[Mapping[Hook, Sequence[str]]]) -> list[dict[str, Any]]:
    """Which programs stand at each hook of each port, how many runs began there, and with which verdicts they ended."""
    ran = [each for packet in (*traffic.packets, *traffic.clones) for each in packet.programs]
    found = []
    for port, hooks in enumerate(places):
        for hook, names in hooks.items():
            verdicts = [each.verdict for each in ran if (each.device, each.hook) == (port, hook)]
            shown = {_verdict(hook, verdict): verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
            found.append({"interface": interface_name(port, len(places)), "hook": hook.value, "programs": list(names),
                          "runs": len(verdicts), "verdicts": shown})  # fmt: skip
    return found


def _verdict(hook: Hook, verdict: int | None) -> str:
    if verdict is None:
        return "ended"
    kind = VERDICTS.get(hook.type)
    return kind(verdict).name if kind and verdict in tuple(kind) else str(verdict)


def describe_interfaces(counters: Mapping[str, Any], ifindexes: Sequence[int], ports: int) -> list[dict[str, Any]]:
    """Packets and bytes in and out of each interface. A device that has no such counter has nothing to count."""
    columns = {
        "packets_in": "RECEIVED",
        "bytes_in": "RECEIVED_BYTES",
        "packets_out": "SENT",
        "bytes_out": "SENT_BYTES",
        "queue_full": "EGRESS_DROPPED",
    }
    return [
        {"name": interface_name(interface, ports), "ifindex": ifindexes[interface]}
        | {column: counters[name][interface] if name in counters else 0 for column, name in columns.items()}
        for interface in range(ports + 1)
    ]


def describe_clocks(traffic: Traffic, pacing: Pacing) -> dict[str, Any] | None:
    """Clocks that a packet's program took and that the run took; None for a device without clocks. Averages over the
    run only where packets came back to back: otherwise it idled."""
    if not traffic.clocks:
        return None
    taken = sorted(
        packet.finished - packet.started
        for packet in traffic.packets
        if packet.started is not None and packet.finished is not None
    )
    result: dict[str, Any] = {"total": traffic.clocks, "instructions": traffic.instructions}
    if pacing.back_to_back:
        result["instructions_a_clock"] = round(traffic.instructions / traffic.clocks, 3)
        result["clocks_for_each_packet"] = round(traffic.clocks / max(1, len(traffic.packets)), 1)
    if taken:
        result["clocks_a_packet"] = {
            "min": taken[0],
            "median": median_low(taken),
            "p99": taken[-(-99 * len(taken) // 100) - 1],
        }
    return result


def describe_maps(
    definitions: Mapping[str, MapDefinition], contents: MapContents, lost: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Entries that aren't all zeros, by BTF type, in the order of their keys (a walk's is random): `value`, or `values`
    by CPU where a per-CPU map has any. Of a map of records all that came, by their numbers, and how many were
    `lost`."""
    return {
        name: _describe_map(definitions[name], entries) | ({"lost": lost[name]} if name in lost else {})
        for name, entries in contents.items()
    }


def _describe_map(definition: MapDefinition, entries: Mapping[bytes, Sequence[bytes]]) -> dict[str, Any]:
    shown = []
    for key, values in sorted(entries.items(), key=lambda entry: _rank(definition.format_key(entry[0]), entry[0])):
        if definition.type not in REDIRECT_MAPS | EVENTS and not any(map(any, values)):
            continue
        if definition.variables is not None:
            variables = definition.variables.at(values[0])
            shown += [{"key": name, "value": value} for name, value in variables.items()]
        elif len(values) == 1:
            shown.append({"key": definition.format_key(key), "value": definition.format_value(values[0])})
        else:
            by_cpu = {str(cpu): definition.format_value(value) for cpu, value in enumerate(values) if any(value)}
            shown.append({"key": definition.format_key(key), "values": by_cpu})
    return {"type": definition.type.name, "max_entries": definition.max_entries, "entries": shown}


def _rank(key: Any, data: bytes) -> tuple[int, bytes]:
    """Where a key stands among others: numbers by their value, anything else by its bytes."""
    return (key, b"") if isinstance(key, int) else (0, data)


# -- tables ---------------------------------------------------------------------------------------------------------


def print_tables(report: Mapping[str, Any], console: "Console") -> None:
    """The report (as `bpfnic.host.run.run` returns it) in tables."""
    device = report["device"]
    console.print(
        f"[bold]{report['program']['name']}[/] ({report['program']['slots']} slots, {report['program']['file']}) on "
        f"{device['backend']}: {device['cpus']} CPU{'s' * (device['cpus'] > 1)}, {device['ports']} ports",
        soft_wrap=True,
    )
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    _print_packets(report["packets"], console)
    places = report["attached"]
    if len(places) != device["ports"] or len({(place["hook"], *place["programs"]) for place in places}) > 1:
        _print_attached(places, console)  # otherwise one program stands at every port
    _print_interfaces(report["interfaces"], console)
    if report["clocks"]:
        _print_clocks(report["clocks"], console)
    for name, content in report["maps"].items():
        _print_map(name, content, console)


def _table(console: "Console", title: str, *columns: str) -> "Table":
    """An empty table whose first column is text and whose others are numbers, under its title, printed now."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console.print(f"[bold]{title}[/]", highlight=False)
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 1), caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _finish(console: "Console", table: "Table") -> None:
    console.print(table)
    console.print()


def _print_packets(packets: Mapping[str, Any], console: "Console") -> None:
    table = _table(console, "Verdicts", "verdict", "packets", "share")
    total = packets["received"] + packets["cloned"]
    rows = [
        *packets["verdicts"].items(),
        *(row for cause, count in packets["aborted"].items() for row in _aborted(cause, count, packets["ended"])),
        *((f"refused: {reason}", count) for reason, count in packets["refused"].items()),
    ]
    for name, count in rows:
        table.add_row(name, f"{count:,}", f"{100 * count / total:.1f} %")
    if packets["cloned"]:
        table.caption = f"{packets['cloned']:,} of them clones (bpf_clone_redirect)"
    _finish(console, table)


def _aborted(cause: str, count: int, ended: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Rows for a cause: all, and by the instructions at which programs were ended."""
    yield f"  {cause}", count
    for place in ended:
        if place["cause"] == cause:
            source = f" ({place['source']})" if place["source"] else ""
            name = f"{place['program']}, " if place["program"] else ""
            yield f"    {name}instruction {place['instruction']}: {place['text']}{source}", place["packets"]


def _print_attached(places: Sequence[Mapping[str, Any]], console: "Console") -> None:
    table = _table(console, "Attached", "where", "programs", "runs", "verdicts")
    for column in table.columns[1:]:
        column.overflow = "fold"
    for row in places:
        verdicts = ", ".join(f"{name} {count:,}" for name, count in row["verdicts"].items())
        where, names = f"{row['interface']} {row['hook']}", ", ".join(row["programs"])
        table.add_row(where, names, f"{row['runs']:,}", verdicts or "–")
    _finish(console, table)


def _print_interfaces(interfaces: Sequence[Mapping[str, Any]], console: "Console") -> None:
    columns = ("", "ifindex", "packets in", "bytes in", "packets out", "bytes out", "queue full")
    table = _table(console, "Interfaces", *columns)
    for row in interfaces:
        numbers = (row["packets_in"], row["bytes_in"], row["packets_out"], row["bytes_out"], row["queue_full"])
        table.add_row(row["name"], str(row["ifindex"] or "–"), *(f"{number:,}" for number in numbers))
    _finish(console, table)


def _print_clocks(clocks: Mapping[str, Any], console: "Console") -> None:
    table = _table(console, "Clocks", "", "min", "median", "p99")
    if taken := clocks.get("clocks_a_packet"):
        table.add_row("from a program's start to its end", *(f"{value:,}" for value in taken.values()))
    _finish(console, table)
    lines = ["One packet's instruction takes 11 clocks or more: a barrel runs many packets at once."]
    if "instructions_a_clock" in clocks:
        lines.append(
            f"{clocks['total']:,} clocks in all, {clocks['clocks_for_each_packet']:,} for each packet; "
            f"{clocks['instructions']:,} instructions, {clocks['instructions_a_clock']} a clock."
        )
    else:
        lines.append(f"{clocks['total']:,} clocks in all, idle ones too; {clocks['instructions']:,} instructions.")
    console.print("\n".join(lines) + "\n", highlight=False, soft_wrap=True)


def _print_map(name: str, content: Mapping[str, Any], console: "Console") -> None:
    entries = content["entries"]
    title = f"Map {name} ({content['type']}, {content['max_entries']:,} entries)"
    if "lost" in content:
        title = f"Map {name} ({content['type']}): {len(entries):,} records, {content['lost']:,} lost"
    if not entries:
        console.print(f"[bold]{title}[/]{'' if 'lost' in content else ': all zeros'}\n", highlight=False)
        return
    rows = [_row(entry) for entry in entries[:SHOWN_ENTRIES]]
    if any([cell.column for cell in row] != [cell.column for cell in rows[0]] for row in rows):
        rows = [_plain_row(entry) for entry in entries[:SHOWN_ENTRIES]]
    table = _table(console, title, *(("record", "bytes") if "lost" in content else (cell.column for cell in rows[0])))
    for column, cell in zip(table.columns, rows[0], strict=True):
        column.justify, column.overflow = "right" if cell.number else "left", "fold"
    for row in rows:
        table.add_row(*(cell.text for cell in row))
    if len(entries) > SHOWN_ENTRIES:
        others = "more" if "lost" in content else "more that aren't zero"
        table.caption = f"… and {len(entries) - SHOWN_ENTRIES:,} {others}"
    _finish(console, table)


class _Cell(NamedTuple):
    """What a map's table shows of an entry under a column's name."""

    column: str
    text: str
    number: bool = False


def _row(entry: Mapping[str, Any]) -> list[_Cell]:
    """An entry: each member of a structure in a column of its own."""
    value, note = _value(entry)
    if isinstance(value, dict):
        return [*_cells("key", entry["key"], ""), *_cells("value", value, ","), *([_Cell("", note)] if note else [])]
    return [*_cells("key", entry["key"], ""), *_plain_row(entry)[1:]]


def _plain_row(entry: Mapping[str, Any]) -> list[_Cell]:
    """An entry as one key and one value."""
    value, note = _value(entry)
    return [_Cell("key", _text(entry["key"], "")), _Cell("value", f"{_text(value)} {note}".rstrip())]


def _cells(column: str, value: Any, separator: str) -> list[_Cell]:
    if isinstance(value, dict):
        return [_Cell(name, _text(part, separator), isinstance(part, int)) for name, part in value.items()]
    return [_Cell(column, _text(value, separator))]


def _value(entry: Mapping[str, Any]) -> tuple[Any, str]:
    """An entry's value, and what there is to say of it: those of several CPUs are one where they are made of numbers,
    their sum."""
    if "value" in entry:
        return entry["value"], ""
    values = entry["values"]
    total = None
    for value in values.values():
        total = value if total is None else _sum(total, value)
    if total is not None:
        return total, f"(sum of {len(values)} CPUs)" if len(values) > 1 else f"(CPU {next(iter(values))})"
    return "; ".join(f"CPU {cpu}: {_text(value)}" for cpu, value in values.items()), ""


def _sum(left: Any, right: Any) -> Any:
    """Member by member; None where there is something that has no sum."""
    if isinstance(left, dict) and isinstance(right, dict):
        members = {name: _sum(left[name], right[name]) for name in left}
        return None if None in members.values() else members
    if isinstance(left, list) and isinstance(right, list):
        elements = [_sum(one, other) for one, other in zip(left, right, strict=True)]
        return None if None in elements else elements
    return left + right if isinstance(left, int) and isinstance(right, int) else None


def _text(value: Any, separator: str = ",") -> str:
    """A key or value by its BTF type in one line; numbers with a separator of thousands."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part, separator)}" for name, part in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_text(part, separator) for part in value) + "]"
    return f"{value:{separator}}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
