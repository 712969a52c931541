"""The NIC: packet path, cores, map memory and registers behind AXI4-Stream and AXI4-Lite.

`amaranth.back.verilog.convert(Nic(config), name="nic")` gives its Verilog: clock `clk`, synchronous reset `rst` (high).
"""

from amaranth import Module
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect

from bpfnic.hdl import interfaces
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.control import Control
from bpfnic.hdl.core import Core
from bpfnic.hdl.maps import MapEngine, MapMemory
from bpfnic.hdl.maps.events import Merge
from bpfnic.hdl.packets import PacketPath
from bpfnic.hdl.programs import ProgramStore

_AXIL = ("awvalid", "awready", "awaddr", "awprot", "wvalid", "wready", "wdata", "wstrb", "bvalid", "bready", "bresp",
         "arvalid", "arready", "araddr", "arprot", "rvalid", "rready", "rdata", "rresp")  # fmt: skip

_RANDOM_TURN = 7  # bits by which the next core's random numbers are turned, so that cores draw different ones


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
        m = Module()
        config = self.config
        m.submodules.path = path = PacketPath(config)
        m.submodules.map_memory = map_memory = MapMemory(config)
        m.submodules.map_engine = map_engine = MapEngine(config)
        m.submodules.control = control = Control(config)
        cores = [Core(config) for _ in range(config.cores)]
        stores = [ProgramStore(config) for _ in range(config.cores)]

        for i, (core, store) in enumerate(zip(cores, stores, strict=True)):
            m.submodules[f"core{i}"], m.submodules[f"program{i}"] = core, store
            connect(m, path.start[i], core.start)
            connect(m, core.finish, path.finish[i])
            connect(m, core.bounds, path.bounds[i])
            connect(m, core.local, path.local[i])
            connect(m, core.service, path.service[i])
            connect(m, path.answer[i], core.answer)
            connect(m, core.fetch, store.read)
            connect(m, core.map, map_memory.port[i])
            connect(m, core.engine, map_engine.port[i])
            m.d.comb += [
                core.budget.eq(control.budget),
                core.time.eq(control.time),
                core.random.eq(control.random.rotate_left(_RANDOM_TURN * i)),
                core.cpu_base.eq(i * config.threads),
                control.retired[i].eq(core.retired),
                store.write.enable.eq(control.program.enable),
                store.write.slot.eq(control.program.slot),
                store.write.data.eq(control.program.data),
            ]
        m.d.comb += control.program.read_data.eq(stores[0].write.read_data)

        connect(m, control.chain, path.chain)
        connect(m, control.map, map_memory.port[config.cores])
        connect(m, control.descriptor, map_engine.write)
        connect(m, control.keyed, map_engine.host)
        connect(m, control.secret, map_engine.secret)
        connect(m, control.rss_key, path.rss_key)
        connect(m, map_engine.table, map_memory.table)
        connect(m, map_engine.rows, map_memory.rows)
        m.d.comb += [
            path.enable.eq(control.enable),
            path.apart.eq(control.apart),
            path.time.eq(control.time),
            control.causes.eq(path.causes),
            control.advance.eq(self.advance),
        ]
        for i, core in enumerate(cores):
            m.d.comb += [
                map_engine.ended[i].eq(core.finish.valid & core.finish.ready),
                map_engine.ended_thread[i].eq(core.finish.payload.thread),
            ]
        m.submodules.merge = merge = Merge(config)
        connect(m, path.egress[config.ports], merge.packets)
        connect(m, map_engine.frames, merge.records)
        for i, name in enumerate(interface_names(config)):
            m.d.comb += path.control[i].eq(control.interface[i])
            self._connect_stream(m, f"s_axis_{name}", path.ingress[i], arriving=True)
            leaving = merge.frames if i == config.ports else path.egress[i]
            self._connect_stream(m, f"m_axis_{name}", leaving, arriving=False)
        m.d.comb += [shown.eq(status) for shown, status in zip(control.status, path.status, strict=True)]
        for name in _AXIL:
            outer, inner = getattr(self, f"s_axil_{name}"), getattr(control, name)
            m.d.comb += outer.eq(inner) if control.signature.members[name].flow is Out else inner.eq(outer)

        if config.trace:
            traces = {
                "retire": [core.retire_trace for core in cores],
                "result": [core.result_trace for core in cores],
                "dispatch": path.dispatch_trace,
                "finish": path.finish_trace,
                "clone": path.clone_trace,
                "shared": [*map_memory.shared_trace, *map_engine.shared_trace],
                "release": path.release_trace,
                "refuse": path.refuse_trace,
                "emit": map_engine.emit_trace,
            }
            for name, (_, (kind, index, field)) in trace_fields(config).items():
                trace = traces[kind] if index is None else traces[kind][index]
                m.d.comb += getattr(self, name).eq(trace[field])
        return m

    def _connect_stream(self, m: Module, prefix: str, inner, *, arriving: bool) -> None:
        axis = {name: getattr(self, f"{prefix}_t{name}") for name in ("data", "keep", "last", "user", "valid", "ready")}
        beat = inner.payload
        pairs = [(axis[name], getattr(beat, name)) for name in ("data", "keep", "last", "user")]
        pairs += [(axis["valid"], inner.valid), (inner.ready, axis["ready"])]
        for outer, own in pairs:
            m.d.comb += own.eq(outer) if arriving else outer.eq(own)
