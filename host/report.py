"""What a run showed: as one JSON object, and as tables for people. The tables show what the JSON holds."""

from collections.abc import Mapping, Sequence
from statistics import median_low
from typing import TYPE_CHECKING, Any

from bpfnic.host.check import MapContents
from bpfnic.host.device import Arrival, Capabilities, Traffic
from bpfnic.host.maps import MapDefinition
from bpfnic.host.nic import interface_name
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

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


def describe_packets(arrivals: Sequence[Arrival], traffic: Traffic, counters: Mapping[str, Any]) -> dict[str, Any]:
    """How many packets came, and what became of them: by verdict, those aborted by cause, those refused by reason."""
    packets = traffic.packets
    causes = [packet.cause for packet in packets if packet.cause is not Cause.NONE]
    return {
        "received": len(arrivals),
        "verdicts": {
            action.name: count for action in XdpAction if (count := sum(packet.action is action for packet in packets))
        },
        "aborted": {cause.name: causes.count(cause) for cause in Cause if cause in causes},
        "refused": {reason: count for name, reason in REFUSALS.items() if (count := sum(counters.get(name, [0])))},
    }


def describe_interfaces(counters: Mapping[str, Any], ifindexes: Sequence[int], ports: int) -> list[dict[str, Any]]:
    """Packets and bytes in and out of each interface."""
    columns = {
        "packets_in": "RECEIVED",
        "bytes_in": "RECEIVED_BYTES",
        "packets_out": "SENT",
        "bytes_out": "SENT_BYTES",
        "queue_full": "EGRESS_DROPPED",
    }
    return [
        {"name": interface_name(interface, ports), "ifindex": ifindexes[interface]}
        | {column: counters[name][interface] for column, name in columns.items()}
        for interface in range(ports + 1)
    ]


def describe_clocks(traffic: Traffic) -> dict[str, Any] | None:
    """Clocks that a packet's program took and that the run took; None for a device without clocks."""
    if not traffic.clocks:
        return None
    taken = sorted(
        packet.finished - packet.started
        for packet in traffic.packets
        if packet.started is not None and packet.finished is not None
    )
    result: dict[str, Any] = {
        "total": traffic.clocks,
        "instructions": traffic.instructions,
        "instructions_a_clock": round(traffic.instructions / traffic.clocks, 3),
        "clocks_between_packets": round(traffic.clocks / max(1, len(traffic.packets)), 1),
    }
    if taken:
        result["clocks_a_packet"] = {
            "min": taken[0],
            "median": median_low(taken),
            "p99": taken[-(-99 * len(taken) // 100) - 1],
        }
    return result


def describe_maps(definitions: Mapping[str, MapDefinition], contents: MapContents) -> dict[str, dict[str, Any]]:
    """Entries that aren't all zeros, by BTF type: `value`, or `values` by CPU where a per-CPU map has any."""
    return {name: _describe_map(definitions[name], entries) for name, entries in contents.items()}


def _describe_map(definition: MapDefinition, entries: Mapping[bytes, Sequence[bytes]]) -> dict[str, Any]:
    shown = []
    for key, values in entries.items():
        if not any(map(any, values)):
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


# -- tables ---------------------------------------------------------------------------------------------------------


def print_tables(report: Mapping[str, Any], console: "Console") -> None:
    """The report (as `bpfnic.host.run.run` returns it) in tables."""
    device = report["device"]
    console.print(
        f"[bold]{report['program']['name']}[/] ({report['program']['slots']} slots, {report['program']['file']}) on "
        f"{device['backend']}: {device['cpus']} CPUs, {device['ports']} ports"
    )
    for note in report["notes"]:
        console.print(f"note: {note}", highlight=False)
    _print_packets(report["packets"], console)
    _print_interfaces(report["interfaces"], console)
    if report["clocks"]:
        _print_clocks(report["clocks"], console)
    for name, content in report["maps"].items():
        _print_map(name, content, console)


def _table(title: str, *columns: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE, title_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _print_packets(packets: Mapping[str, Any], console: "Console") -> None:
    table = _table("Verdicts", "verdict", "packets", "share")
    total = packets["received"]
    rows = [
        *packets["verdicts"].items(),
        *((f"  {cause}", count) for cause, count in packets["aborted"].items()),
        *((f"refused: {reason}", count) for reason, count in packets["refused"].items()),
    ]
    for name, count in rows:
        table.add_row(name, f"{count:,}", f"{100 * count / total:.1f} %")
    console.print(table)


def _print_interfaces(interfaces: Sequence[Mapping[str, Any]], console: "Console") -> None:
    table = _table("Interfaces", "", "ifindex", "packets in", "bytes in", "packets out", "bytes out", "queue full")
    for row in interfaces:
        numbers = (row["packets_in"], row["bytes_in"], row["packets_out"], row["bytes_out"], row["queue_full"])
        table.add_row(row["name"], str(row["ifindex"] or "–"), *(f"{number:,}" for number in numbers))
    console.print(table)


def _print_clocks(clocks: Mapping[str, Any], console: "Console") -> None:
    table = _table("Clocks", "", "min", "median", "p99")
    if taken := clocks.get("clocks_a_packet"):
        table.add_row("a packet, from its program's start to its end", *(f"{value:,}" for value in taken.values()))
        console.print(table)
    console.print(
        f"{clocks['total']:,} clocks in all, {clocks['clocks_between_packets']:,} for each packet (many run at once: a "
        f"barrel takes about 9 clocks for an instruction of one packet); {clocks['instructions']:,} instructions, "
        f"{clocks['instructions_a_clock']} a clock\n",
        highlight=False,
    )


def _print_map(name: str, content: Mapping[str, Any], console: "Console") -> None:
    entries = content["entries"]
    title = f"Map {name} ({content['type']}, {content['max_entries']:,} entries)"
    if not entries:
        console.print(f"[bold italic]{title}[/]: all zeros\n")
        return
    table = _table(title, "key", "value")
    table.columns[1].justify = "left"
    for entry in entries[:SHOWN_ENTRIES]:
        if "value" in entry:
            table.add_row(_text(entry["key"]), _text(entry["value"]))
            continue
        for number, (cpu, value) in enumerate(entry["values"].items()):
            table.add_row("" if number else _text(entry["key"]), f"CPU {cpu}: {_text(value)}")
    if len(entries) > SHOWN_ENTRIES:
        table.add_row("…", f"and {len(entries) - SHOWN_ENTRIES:,} more that aren't zero")
    console.print(table)


def _text(value: Any) -> str:
    """A value by its BTF type in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
