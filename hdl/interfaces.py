"""What the blocks of the NIC say to each other: layouts, streams and signatures. docs/hardware.md draws them.

Streams are Amaranth's (valid, ready, payload; a transfer happens in a clock in which both are high, and `valid` never
waits for `ready`). Everything is in the domain "sync".
"""

from amaranth import unsigned
from amaranth.lib import data, stream
from amaranth.lib.enum import Enum, IntEnum
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import DescriptorWrite, EnginePort, HashSecret, MapHostPort, MapPort, RowPort, TablePort
from bpfnic.spec import addresses
from bpfnic.spec.maps import HOST_QUEUES
from bpfnic.spec.metadata import RSS_KEY_BYTES
from bpfnic.spec.registers import CHAIN_WORDS, ENTRY_TYPES
from bpfnic.spec.rings import EVENT_USER_BIT

# ---------------------------------------------------------------- core <-> packet path


class Region(Enum, shape=2):
    """Which local window an access hits."""

    STACK = 0
    CONTEXT = 1
    PACKET = 2
    SKB = 3  # of a tc program: words behind the stack, and live ones


def Start(config: NicConfig) -> data.StructLayout:
    """Packet path -> core: run a program on a thread. Its context, bounds and cleared stack are in place already."""
    return data.StructLayout({"thread": range(config.threads), "pc": range(config.program_slots)})


def Finish(config: NicConfig) -> data.StructLayout:
    """Core -> packet path: a thread is done. `cause` (spec.causes): 0 after an exit; `verdict`: low half of r0 then."""
    return data.StructLayout({"thread": range(config.threads), "verdict": 32, "cause": 4})


def Bounds(config: NicConfig) -> data.StructLayout:
    """Where a thread's packet lies: its buffer, and offsets in it. data_meta <= data <= data_end <= buffer_bytes."""
    offset = range(config.buffer_bytes + 1)
    return data.StructLayout(
        {"buffer": range(config.packet_buffers), "data_meta": offset, "data": offset, "data_end": offset}
    )


def BoundsPort(config: NicConfig) -> Signature:
    """Core asks, packet path answers in the same clock (distributed memory)."""
    return Signature({"thread": Out(range(config.threads)), "bounds": In(Bounds(config))})


def LocalPort(config: NicConfig) -> Signature:
    """The core's access to its stack, context and packet memories: one each clock, never stalls. A thread's next one
    comes 3 clocks after its last at the earliest (it comes 11 clocks later, when the thread has gone round).

    The request is checked already (window, alignment). `offset` counts bytes from the start of the window's region: of
    the thread's stack (0..511), its context (0..63) or the packet buffer `buffer`. `size` is the logarithm of the bytes
    (0..3), `lanes` says which they are of the 8-byte word at `offset` and the one behind it, the first one's lowest.
    Words lie in two banks, and of these two the one with an even number is the even bank's word `even`, the other one
    the odd bank's word `offset` >> 4. The asker finds both in the clock before. Packets take any alignment, and so do
    loads from the stack, for what helpers' arguments point at. `write_data` is right-aligned. `read_data` is
    right-aligned and zero-extended, and valid exactly 3 clocks after the clock of the request (block RAM, its output
    register, alignment register).
    """
    return Signature(
        {
            "enable": Out(1),
            "write": Out(1),
            "region": Out(Region),
            "thread": Out(range(config.threads)),
            "buffer": Out(range(config.packet_buffers)),
            "offset": Out(range(config.buffer_bytes)),
            "even": Out(range(config.buffer_bytes // 16)),
            "size": Out(2),
            "lanes": Out(16),
            "write_data": Out(64),
            "read_data": In(64),
        }
    )


class Service(Enum, shape=4):
    """Helpers that change what the packet path holds for a thread, or ask for what it knows of the packet."""

    REDIRECT = 0  # a: r1 ifindex, b: r2 flags
    ADJUST_HEAD = 1  # a: unused, b: r2 delta
    ADJUST_TAIL = 2  # a: unused, b: r2 delta
    REDIRECT_MAP = 3  # a: the entry (spec.maps.redirect_word), b: r3 flags
    ADJUST_META = 4  # a: unused, b: r2 delta
    RX_TIMESTAMP = 5  # spec.metadata.Metadata; a and b are unused
    RX_HASH = 6
    RX_VLAN_TAG = 7
    CLONE_REDIRECT = 8  # a: r2 ifindex, b: r3 flags


def ServiceRequest(config: NicConfig) -> data.StructLayout:
    """Core -> packet path. The thread has left the rotation until the Answer."""
    return data.StructLayout({"thread": range(config.threads), "service": Service, "a": 64, "b": 64})


def Answer(config: NicConfig) -> data.StructLayout:
    """Packet path -> core: r0 of the helper."""
    return data.StructLayout({"thread": range(config.threads), "value": 64})


# ---------------------------------------------------------------- program store


def ProgramRead(config: NicConfig) -> Signature:
    """A core's fetch: `slot` in one clock, all outputs valid exactly 2 clocks later. `even_row` is half of the even one
    of `slot` and the slot behind it (the store's banks hold even and odd slots). `next_imm` is the upper half of
    the following slot (the second half of a 16-byte instruction), `next_reserved` says that its lower half is not 0."""
    return Signature(
        {
            "slot": Out(range(config.program_slots)),
            "even_row": Out(range(config.program_slots // 2)),
            "instruction": In(64),
            "next_imm": In(32),
            "next_reserved": In(1),
        }
    )


def ProgramWrite(config: NicConfig) -> Signature:
    """Control -> every core's copy of the program store. In a clock without `enable` the slot is read: `read_data` 2
    clocks later."""
    return Signature(
        {"enable": Out(1), "slot": Out(range(config.program_slots)), "data": Out(64), "read_data": In(64)}
    )


# ---------------------------------------------------------------- packets in and out


def Beat(user: int) -> data.StructLayout:
    """One AXI4-Stream transfer of 8 bytes, the first byte lowest. keep: a run of ones from bit 0, all ones but in the
    last beat. Ingress user bit 0: the frame is bad (with `last`). Host ingress: user bits 3..1 are the egress port.
    Egress user: bits 2..0 the interface that the packet came in by (0 to `ports`; of a clone, where its program sees it
    come in), bits 6..3 the XDP action (15: none ran), bits 12..7 the queue that a program chose for a frame to the
    host, otherwise 0. Bit 13: it is no packet but a record (spec.rings), and all
    others are 0."""
    return data.StructLayout({"data": 64, "keep": 8, "last": 1, "user": user})


INGRESS_USER = 4
QUEUE_BITS = exact_log2(HOST_QUEUES)
EGRESS_USER = EVENT_USER_BIT + 1


# ---------------------------------------------------------------- control <-> packet path


def Entry(config: NicConfig) -> data.StructLayout:
    """A program at a hook (spec.registers ENTRY). following: the word of CHAIN for the next one there, 0 for none."""
    return data.StructLayout(
        {
            "valid": 1,
            "slot": range(config.program_slots),
            "program_type": range(len(ENTRY_TYPES)),
            "following": range(CHAIN_WORDS),
        }
    )


class Hook(Enum, shape=2):
    """spec.programs.Hook, in its order."""

    XDP = 0
    TCX_INGRESS = 1
    TCX_EGRESS = 2
    SOCKET = 3


def InterfaceControl(config: NicConfig) -> data.StructLayout:
    """What the registers say of one interface (spec.registers IFINDEX, MODE, and a hook's first program)."""
    return data.StructLayout(
        {
            "ifindex": 32,
            "xdp": Entry(config),
            "ingress": Entry(config),
            "egress": Entry(config),
            "socket": Entry(config),
            "ingress_waits": 1,
            "egress_waits": 1,
        }
    )


def ChainWrite(config: NicConfig) -> Signature:
    """Control -> packet path: word `index` of CHAIN (spec.registers)."""
    return Signature({"enable": Out(1), "index": Out(range(CHAIN_WORDS)), "entry": Out(Entry(config))})


class IngressEvent(IntEnum):
    """Counted per ingress: the counters of spec.registers in their order (RECEIVED_BYTES apart)."""

    RECEIVED = 0
    REFUSED_FULL = 1
    REFUSED_LONG = 2
    REFUSED_ERROR = 3
    DROPPED = 4
    PASSED = 5
    TRANSMITTED = 6
    REDIRECTED = 7
    ABORTED = 8


def InterfaceStatus(config: NicConfig) -> data.StructLayout:
    """Packet path -> control, one an ingress (config.ingresses). Each event bit is a count of one in that clock; the
    bytes belong to
    RECEIVED and SENT of the same clock. in_flight and the sequence numbers are levels of the same clock's start: a
    packet is in flight from the clock of its RECEIVED (if not refused then) to the clock of its outcome's event."""
    return data.StructLayout(
        {
            "events": len(IngressEvent),
            "received_bytes": 16,
            "sent": 1,
            "sent_bytes": 16,
            "egress_dropped": 1,
            "in_flight": range(config.cores * config.packet_buffers + 1),
            "next_sequence": 32,
            "oldest_sequence": 32,
        }
    )


RssKeyWrite = Signature({"enable": Out(1), "index": Out(range(RSS_KEY_BYTES // 4)), "data": Out(32)})
"""Control -> packet path: 4 bytes of the key of the RSS hash (register RSS_KEY), the first one lowest."""


# ---------------------------------------------------------------- trace


def RetireTrace(config: NicConfig) -> data.StructLayout:
    """One retired instruction of a core. `pending`: the value (if any) comes later, with a ResultTrace of that thread.
    write: `register` (0..9) gets `value`, otherwise `value` is what a store stores (the second part, where it crosses a
    row of map memory). sampled: the value is one that a program can't compute (clock, random number). address: of the
    memory access, if `memory`. A trap retires nothing; it shows as a Finish with a cause (a call of a map helper that
    traps after its request has shown as pending, and gets no ResultTrace)."""
    return data.StructLayout(
        {
            "valid": 1,
            "thread": range(config.threads),
            "pc": range(config.program_slots),
            "next_pc": range(config.program_slots),
            "pending": 1,
            "write": 1,
            "register": 4,
            "value": 64,
            "sampled": 1,
            "memory": 1,
            "address": 32,
        }
    )


def ResultTrace(config: NicConfig) -> data.StructLayout:
    """The end of an instruction whose retirement was pending."""
    return data.StructLayout(
        {"valid": 1, "thread": range(config.threads), "write": 1, "register": 4, "value": 64}
    )


ENGINE_TRACES = 2
"""Calls that the map engine decides in one clock: one of the serial unit, then a look-up of the finder."""


def SharedTrace(config: NicConfig) -> data.StructLayout:
    """One access that a bank of map memory granted in this clock, or, behind the last bank, one call that the map
    engine decided on a keyed map. (clock, bank) is its serial number: a total order that agrees with every bank, the
    tables and every thread. requester: core number, or `cores` for the host.

    write: bytes of row `row` that the bank writes in this clock, 0 for none (an atomic does so some clocks after its
    grant, and its bank grants nothing until then); byte i of the row comes from byte i % 8 of `data`."""
    return data.StructLayout(
        {
            "valid": 1,
            "requester": range(config.cores + 1),
            "tag": 8,
            "write": addresses.ROW_BYTES,
            "row": range(config.map_bytes // addresses.ROW_BYTES // config.map_banks),
            "data": 64,
        }
    )


def DispatchTrace(config: NicConfig) -> data.StructLayout:
    """A packet begins on a thread: packet number `sequence` of `ingress`, or (`resumed`) the one that the thread had
    before; with the program at `pc`, of `program_type` (registers.ENTRY_TYPES), at `hook` of interface `device`."""
    return data.StructLayout(
        {
            "valid": 1,
            "thread": range(config.threads),
            "ingress": range(config.ingresses),
            "sequence": 32,
            "resumed": 1,
            "pc": range(config.program_slots),
            "program_type": range(len(ENTRY_TYPES)),
            "hook": Hook,
            "device": range(config.interfaces),
        }
    )


def FinishTrace(config: NicConfig) -> data.StructLayout:
    """A packet's program ended on a thread."""
    return data.StructLayout({"valid": 1, "thread": range(config.threads), "verdict": 32, "cause": 4})


def ReleaseTrace(config: NicConfig) -> data.StructLayout:
    """A packet leaves the order table: to egress `egress`'s queue if `queued`, otherwise it is gone. action: its XDP
    action as it is counted, whether a program ran or not; cause: why it was aborted, 0 if it was not."""
    return data.StructLayout(
        {
            "valid": 1,
            "ingress": range(config.ingresses),
            "sequence": 32,
            "queued": 1,
            "egress": range(config.interfaces),
            "action": 3,
            "cause": 4,
        }
    )


def CloneTrace(config: NicConfig) -> data.StructLayout:
    """A thread's packet was cloned: if `made`, the clone is the next packet of ingress `config.interfaces`, otherwise
    there was no buffer for it. Of all cores one a clock at most."""
    return data.StructLayout({"valid": 1, "thread": range(config.threads), "made": 1})


def RefuseTrace(config: NicConfig) -> data.StructLayout:
    """Frames that ended without being accepted: bit i for ingress i. Frames end in the order they came, so the n-th
    frame of an ingress is known by counting its accepted and refused ones."""
    return data.StructLayout({"refused": config.interfaces, "accepted": config.interfaces})


def EmitTrace(config: NicConfig) -> data.StructLayout:
    """The oldest record of map `index` leaves its ring, or is passed over, in this clock: it has its place in the order
    of SharedTrace, and in one clock nothing else concerns its ring. waiting: some record may still leave, without
    anything that a program does."""
    return data.StructLayout({"valid": 1, "index": range(config.maps), "waiting": 1})


def TracePort(config: NicConfig) -> Signature:
    """All of it, sideways out of the NIC; present where config.trace."""
    per_core = data.ArrayLayout
    return Signature(
        {
            "retire": Out(per_core(RetireTrace(config), config.cores)),
            "result": Out(per_core(ResultTrace(config), config.cores)),
            "dispatch": Out(per_core(DispatchTrace(config), config.cores)),
            "finish": Out(per_core(FinishTrace(config), config.cores)),
            "clone": Out(per_core(CloneTrace(config), config.cores)),
            "shared": Out(data.ArrayLayout(SharedTrace(config), config.map_banks + ENGINE_TRACES)),
            "release": Out(ReleaseTrace(config)),
            "refuse": Out(RefuseTrace(config)),
            "emit": Out(EmitTrace(config)),
        }
    )


# ---------------------------------------------------------------- the blocks


def CorePorts(config: NicConfig) -> dict:
    """Members of hdl.core.Core: one barrel core.

    start/finish: a thread's life. A thread that finished is not started again before its Finish was taken.
    budget: instructions a packet may retire. time: nanoseconds, sampled by bpf_ktime_get_ns. random: a new number each
    clock. cpu_base: core number * threads. retired: instructions retired in this clock (0 or 1).
    """
    return {
        "start": In(stream.Signature(Start(config))),
        "finish": Out(stream.Signature(Finish(config))),
        "fetch": Out(ProgramRead(config)),
        "bounds": Out(BoundsPort(config)),
        "local": Out(LocalPort(config)),
        "service": Out(stream.Signature(ServiceRequest(config))),
        "answer": In(stream.Signature(Answer(config))),
        "map": Out(MapPort(config)),
        "engine": Out(EnginePort(config)),
        "budget": In(32),
        "time": In(64),
        "random": In(32),
        "cpu_base": In(8),
        "retired": Out(1),
        "retire_trace": Out(RetireTrace(config)),
        "result_trace": Out(ResultTrace(config)),
    }


def PacketPathPorts(config: NicConfig) -> dict:
    """Members of hdl.packets.PacketPath: everything between the streams and the cores.

    Lists (`.array`) are per core or per interface.
    """
    return {
        "ingress": In(stream.Signature(Beat(INGRESS_USER))).array(config.interfaces),
        "egress": Out(stream.Signature(Beat(EGRESS_USER))).array(config.interfaces),
        "start": Out(stream.Signature(Start(config))).array(config.cores),
        "finish": In(stream.Signature(Finish(config))).array(config.cores),
        "bounds": In(BoundsPort(config)).array(config.cores),
        "local": In(LocalPort(config)).array(config.cores),
        "service": In(stream.Signature(ServiceRequest(config))).array(config.cores),
        "answer": Out(stream.Signature(Answer(config))).array(config.cores),
        "enable": In(1),
        "apart": In(1),  # packets of one flow never run at the same time; takes effect when nothing is in flight
        "time": In(64),  # nanoseconds
        "rss_key": In(RssKeyWrite),
        "control": In(InterfaceControl(config)).array(config.interfaces),
        "chain": In(ChainWrite(config)),
        "status": Out(InterfaceStatus(config)).array(config.ingresses),
        # causes[c] is high in a clock in which a packet was counted as aborted with cause c (one a clock at most: the
        # same clock as its ABORTED event)
        "causes": Out(unsigned(16)),
        "dispatch_trace": Out(DispatchTrace(config)).array(config.cores),
        "finish_trace": Out(FinishTrace(config)).array(config.cores),
        "clone_trace": Out(CloneTrace(config)).array(config.cores),
        "release_trace": Out(ReleaseTrace(config)),
        "refuse_trace": Out(RefuseTrace(config)),
    }


def MapMemoryPorts(config: NicConfig) -> dict:
    """Members of hdl.maps.MapMemory: banks behind a crossbar. Requester number `cores` is the host."""
    return {
        "port": In(MapPort(config)).array(config.cores + 1),
        "table": In(TablePort(config)),
        "rows": In(RowPort(config)),
        "shared_trace": Out(SharedTrace(config)).array(config.map_banks),
    }


def MapEnginePorts(config: NicConfig) -> dict:
    """Members of hdl.maps.MapEngine.

    ended, ended_thread : of each core: in this clock a thread's program ends. frames : records for the host's stream.
    """
    return {
        "ended": In(config.cores),
        "ended_thread": In(range(config.threads)).array(config.cores),
        "frames": Out(stream.Signature(Beat(EGRESS_USER))),
        "emit_trace": Out(EmitTrace(config)),
        "port": In(EnginePort(config)).array(config.cores),
        "write": In(DescriptorWrite(config)),
        "host": In(MapHostPort(config)),
        "table": Out(TablePort(config)),
        "rows": Out(RowPort(config)),
        "secret": In(HashSecret(config)),
        "shared_trace": Out(SharedTrace(config)).array(ENGINE_TRACES),
    }


def ProgramStorePorts(config: NicConfig) -> dict:
    """Members of hdl.programs.ProgramStore: one core's copy."""
    return {"read": In(ProgramRead(config)), "write": In(ProgramWrite(config))}


def ControlPorts(config: NicConfig) -> dict:
    """Members of hdl.control.Control: AXI4-Lite, the registers and the counters.

    AXI4-Lite signals carry their AXI names; wstrb other than 0b1111 and unmapped addresses answer SLVERR (2) and change
    nothing. A write to MAP_DATA or a read of it waits for map memory. advance: nanoseconds to add to the time in this
    clock besides CLOCK_NS (simulation skips idle spans with it; boards tie it to 0).
    """
    return {
        "awvalid": In(1), "awready": Out(1), "awaddr": In(12), "awprot": In(3),
        "wvalid": In(1), "wready": Out(1), "wdata": In(32), "wstrb": In(4),
        "bvalid": Out(1), "bready": In(1), "bresp": Out(2),
        "arvalid": In(1), "arready": Out(1), "araddr": In(12), "arprot": In(3),
        "rvalid": Out(1), "rready": In(1), "rdata": Out(32), "rresp": Out(2),
        "map": Out(MapPort(config)),
        "descriptor": Out(DescriptorWrite(config)),
        "secret": Out(HashSecret(config)),
        "keyed": Out(MapHostPort(config)),
        "program": Out(ProgramWrite(config)),
        "enable": Out(1),
        "apart": Out(1),
        "rss_key": Out(RssKeyWrite),
        "interface": Out(InterfaceControl(config)).array(config.interfaces),
        "chain": Out(ChainWrite(config)),
        "status": In(InterfaceStatus(config)).array(config.ingresses),
        "causes": In(16),
        "retired": In(config.cores),
        "budget": Out(32),
        "time": Out(64),
        "random": Out(32),
        "advance": In(64),
    }
