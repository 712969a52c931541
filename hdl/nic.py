"""The NIC: packet path, cores, map memory and registers behind AXI4-Stream and AXI4-Lite.

`amaranth.back.verilog.convert(Nic(config), name="nic")` gives its Verilog: clock `clk`, synchronous reset `rst` (high).
"""

from amaranth import Module
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl import interfaces
from bpfnic.hdl.config import NicConfig

_AXIL = ("awvalid", "awready", "awaddr", "awprot", "wvalid", "wready", "wdata", "wstrb", "bvalid", "bready", "bresp",
         "arvalid", "arready", "araddr", "arprot", "rvalid", "rready", "rdata", "rresp")  # fmt: skip


def interface_names(config: NicConfig) -> list[str]:
    """What the interfaces are called in port names: port0, port1, …, host."""
    return [f"port{i}" for i in range(config.ports)] + ["host"]


def _stream_ports(config: NicConfig) -> dict:
    members = {}
    for name in interface_names(config):
        ingress, egress = ("s", In, Out, interfaces.INGRESS_USER), ("m", Out, In, interfaces.EGRESS_USER)
        for side, toward, away, user in (ingress, egress):
            prefix = f"{side}_axis_{name}"
            members |= {
                f"{prefix}_tdata": toward(64), f"{prefix}_tkeep": toward(8), f"{prefix}_tlast": toward(1),
                f"{prefix}_tuser": toward(user), f"{prefix}_tvalid": toward(1), f"{prefix}_tready": away(1),
            }  # fmt: skip
    return members


def trace_fields(config: NicConfig) -> dict[str, tuple[int, tuple]]:
    """The trace port's names: trace_KIND_FIELD, with _INDEX for what each core or bank has: width, and where it is in
    interfaces.TracePort (kind, index or None, field)."""
    fields = {}
    for kind, member in interfaces.TracePort(config).members.items():
        array = isinstance(member.shape, data.ArrayLayout)
        layout = member.shape.elem_shape if array else member.shape
        for index in range(member.shape.length) if array else [None]:
            for key, field in layout:
                name = f"trace_{kind}_{key}" + ("" if index is None else f"_{index}")
                fields[name] = (field.width, (kind, index, key))
    return fields


class Nic(Component):
    """The whole device.

    Members
    -------
    s_axis_NAME_*, m_axis_NAME_* : frames into and out of each interface (port0, port1, …, host): tdata (64 bits),
        tkeep, tlast, tuser (interfaces.Beat), tvalid, tready.
    s_axil_* : AXI4-Lite, the registers of spec.registers.
    advance : nanoseconds that the time advances in this clock besides CLOCK_NS.
    trace_* : where config.trace, interfaces.TracePort field by field (`trace_fields`).
    """

    def __init__(self, config: NicConfig):
        self.config = config
        control = interfaces.ControlPorts(config)
        ports = _stream_ports(config) | {f"s_axil_{name}": control[name] for name in _AXIL} | {"advance": In(64)}
        if config.trace:
            ports |= {name: Out(width) for name, (width, _) in trace_fields(config).items()}
        super().__init__(ports)

    def elaborate(self, platform) -> Module:
        return Module()
