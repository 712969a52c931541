"""The NIC's ports as the native loop sees them, by number where hdl/nic.py names them one by one: ports.h; and the
shell around the NIC that the native loop simulates: shell.v.

Only a build imports this (it needs Amaranth); a warm start does not.
"""

from amaranth.lib.wiring import In

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import ENGINE_TRACES
from bpfnic.hdl.nic import Nic, interface_names, trace_fields
from bpfnic.spec import addresses
from bpfnic.spec.rings import EVENT_USER_BIT

BEAT = ("valid", "data", "keep", "last", "user")


def ports_header(config: NicConfig) -> str:
    """Text of ports.h: the configuration as constants, streams by interface number, the trace by core or bank."""
    constants = {
        "INTERFACES": config.interfaces, "CORES": config.cores, "THREADS": config.threads, "BANKS": config.map_banks,
        "ENGINE_TRACES": ENGINE_TRACES,
        "ROW_BYTES": addresses.ROW_BYTES, "MAP_VALUES": addresses.MAP_VALUES,
        "EVENT_USER_BIT": EVENT_USER_BIT,
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


def shell(nic: Nic) -> str:
    """Verilog of module `shell`, with the ports of module `nic` and every input but the clock behind a register.

    What depends on an input without a register between would have to be evaluated when the input changes and again when
    the clock does; this way once. There is no reset: a simulation begins with what one leaves, and a NIC that has none
    takes fewer instructions for each clock.
    """
    ports, body, connections = ["input clk"], [], [".clk(clk)", ".rst(1'b0)"]
    members = [(signal.name, len(signal), member.flow) for _, member, signal in nic.signature.flatten(nic)]
    for name, bits, flow in members:
        width = f"[{bits - 1}:0] " if bits > 1 else ""
        if flow is In:
            ports.append(f"input {width}{name}")
            body += [f"  reg {width}{name}_now = 0;", f"  always @(posedge clk) {name}_now <= {name};"]
            connections.append(f".{name}({name}_now)")
        else:
            ports.append(f"output {width}{name}")
            connections.append(f".{name}({name})")
    head = "module shell(\n  " + ",\n  ".join(ports) + "\n);"
    return "\n".join([head, *body, "  nic nic(\n    " + ",\n    ".join(connections) + "\n  );", "endmodule", ""])


def _getter(name: str, ports: dict[int, str]) -> list[str]:
    head = f"uint64_t {name}(const Vnic &nic, uint32_t i)"
    return _select(head, {number: f"return nic.{port};" for number, port in ports.items()})


def _select(head: str, statements: dict[int, str]) -> list[str]:
    """A function that does the i-th of some statements."""
    cases = [f"    case {number}: {statement}" for number, statement in statements.items()]
    return [f"inline {head} {{", "    switch (i) {", *cases, "    default: __builtin_unreachable();", "    }", "}"]
