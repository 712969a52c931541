"""The NIC's ports as the native loop sees them: ports.h, which names by number what hdl/nic.py names one by one.

Only a build imports this (it needs Amaranth); a warm start does not.
"""

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.nic import interface_names, trace_fields

BEAT = ("valid", "data", "keep", "last", "user")


def ports_header(config: NicConfig) -> str:
    """Text of ports.h: the configuration as constants, streams by interface number, the trace by core or bank."""
    constants = {
        "INTERFACES": config.interfaces, "CORES": config.cores, "THREADS": config.threads, "BANKS": config.map_banks
    }  # fmt: skip
    names = dict(enumerate(interface_names(config)))
    lines = ["#pragma once", "#include <cstdint>", '#include "Vnic.h"', ""]
    lines += [f"constexpr uint32_t {name} = {value};" for name, value in constants.items()]
    lines += _select(
        "void set_ingress(Vnic &nic, uint32_t i, bool valid, uint64_t data, uint32_t keep, bool last, uint32_t user)",
        {
            number: " ".join(f"nic.s_axis_{name}_t{field} = {field};" for field in BEAT) + " break;"
            for number, name in names.items()
        },
    )
    lines += _select(
        "void set_egress_ready(Vnic &nic, uint32_t i, bool ready)",
        {number: f"nic.m_axis_{name}_tready = ready; break;" for number, name in names.items()},
    )
    lines += _getter("ingress_ready", {number: f"s_axis_{name}_tready" for number, name in names.items()})
    for field in BEAT:
        lines += _getter(f"egress_{field}", {number: f"m_axis_{name}_t{field}" for number, name in names.items()})
    trace: dict[str, dict[int, str]] = {}
    for port, (_, (kind, index, field)) in trace_fields(config).items():
        trace.setdefault(f"{kind}_{field}", {})[index or 0] = port
    for name, ports in trace.items():
        lines += _getter(name, ports)
    return "\n".join(lines) + "\n"


def _getter(name: str, ports: dict[int, str]) -> list[str]:
    head = f"uint64_t {name}(const Vnic &nic, uint32_t i)"
    return _select(head, {number: f"return nic.{port};" for number, port in ports.items()})


def _select(head: str, statements: dict[int, str]) -> list[str]:
    """A function that does the i-th of some statements."""
    cases = [f"    case {number}: {statement}" for number, statement in statements.items()]
    return [f"inline {head} {{", "    switch (i) {", *cases, "    default: __builtin_unreachable();", "    }", "}"]
