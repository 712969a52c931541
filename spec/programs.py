"""Program types: their context's fields and their verdicts (names as in linux/bpf.h)."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum


class ProgramType(IntEnum):
    """`enum bpf_prog_type`, the ones that run on a NIC."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    XDP = 6


class Hook(Enum):
    """Where programs stand on a packet's way, in the order of their numbers in the hardware; the names are those of
    bpftool."""

    XDP = "xdp"
    TCX_INGRESS = "tcx/ingress"
    TCX_EGRESS = "tcx/egress"
    SOCKET = "socket"  # behind tcx/ingress, as a packet socket of the host's

    @property
    def type(self) -> ProgramType:
        """Of programs that stand there."""
        return _TYPES[self]

    @property
    def chains(self) -> bool:
        """Several programs may stand there, one behind the other."""
        return self.type is ProgramType.SCHED_CLS


_TYPES = {
    Hook.XDP: ProgramType.XDP,
    Hook.TCX_INGRESS: ProgramType.SCHED_CLS,
    Hook.TCX_EGRESS: ProgramType.SCHED_CLS,
    Hook.SOCKET: ProgramType.SOCKET_FILTER,
}


MAX_HOPS = 9
"""Times that tc programs may send a packet on, or clone it, one behind the other (kernel: XMIT_RECURSION_LIMIT)."""


class XdpAction(IntEnum):
    """`enum xdp_action`. Anything above is counted as aborted (kernel: bpf_warn_invalid_xdp_action)."""

    XDP_ABORTED = 0
    XDP_DROP = 1
    XDP_PASS = 2
    XDP_TX = 3
    XDP_REDIRECT = 4


BPF_F_INGRESS = 1
"""Flag of bpf_redirect and bpf_clone_redirect (linux/bpf.h): the packet comes in at the port that they name."""


class TcAction(IntEnum):
    """`TC_ACT_*` (linux/pkt_cls.h), a sched_cls program's verdict: UNSPEC goes on to the next program of the hook,
    SHOT, STOLEN and TRAP end the packet (kernel: sch_handle_ingress), REDIRECT sends it on, all else lets it pass the
    hook."""

    UNSPEC = 0xFFFF_FFFF
    OK = 0
    RECLASSIFY = 1
    SHOT = 2
    PIPE = 3
    STOLEN = 4
    QUEUED = 5
    REPEAT = 6
    REDIRECT = 7
    TRAP = 8


VERDICTS: dict[ProgramType, type[IntEnum]] = {ProgramType.XDP: XdpAction, ProgramType.SCHED_CLS: TcAction}
"""The verdicts with a name. A socket filter's is a number: how many bytes of the packet to keep."""

TC_DROPS = frozenset({TcAction.SHOT, TcAction.STOLEN, TcAction.TRAP})


@dataclass(frozen=True)
class Field:
    """One member of a context: byte offset and size in bytes (of an array's elements together).

    readable: a program may read it. writable: so many of its bytes, from the first, keep what a program writes; where
    that is less than `size`, the others stay 0. live: read from the thread table, where the packet's place is kept;
    other fields are words that firmware and program write, and 0 until then."""

    name: str
    offset: int
    size: int = 4
    readable: bool = True
    writable: int = 0
    live: bool = False


# struct xdp_md. data, data_end and data_meta are addresses of the packet window. A write to rx_queue_index, of the
# whole word, chooses the host's queue for a packet that passes; one of no queue's number changes nothing (kernel:
# xdp_is_valid_access for offloaded programs, nfp_queue_select of the nfp driver).
XDP_MD = (
    Field("data", 0),
    Field("data_end", 4),
    Field("data_meta", 8),
    Field("ingress_ifindex", 12),
    Field("rx_queue_index", 16, writable=4),
    Field("egress_ifindex", 20),
)
XDP_QUEUE = XDP_MD[4]

# struct __sk_buff, and what a sched_cls program may do with it (kernel: tc_cls_act_is_valid_access). Fields of 16 bits
# in `struct sk_buff` (queue_mapping, tc_index, tc_classid) keep as much of what is written.
SK_BUFF = (
    Field("len", 0, live=True),
    Field("pkt_type", 4),
    Field("mark", 8, writable=4),
    Field("queue_mapping", 12, writable=2),
    Field("protocol", 16),
    Field("vlan_present", 20),
    Field("vlan_tci", 24),
    Field("vlan_proto", 28),
    Field("priority", 32, writable=4),
    Field("ingress_ifindex", 36, live=True),
    Field("ifindex", 40, live=True),
    Field("tc_index", 44, writable=2),
    Field("cb", 48, 20, writable=20),
    Field("hash", 68),
    Field("tc_classid", 72, writable=2),
    Field("data", 76, live=True),
    Field("data_end", 80, live=True),
    Field("napi_id", 84),
    Field("family", 88, readable=False),
    Field("remote_ip4", 92, readable=False),
    Field("local_ip4", 96, readable=False),
    Field("remote_ip6", 100, 16, readable=False),
    Field("local_ip6", 116, 16, readable=False),
    Field("remote_port", 132, readable=False),
    Field("local_port", 136, readable=False),
    Field("data_meta", 140, live=True),
    Field("flow_keys", 144, 8, readable=False),
    Field("tstamp", 152, 8, writable=8),
    Field("wire_len", 160),
    Field("gso_segs", 164),
    Field("sk", 168, 8),
    Field("gso_size", 176),
    Field("tstamp_type", 180, 1),
    Field("hwtstamp", 184, 8),
)
SK_BUFF_BYTES = 192

WORD_BYTES = 4


def _words(fields: tuple[Field, ...], permits: Callable[[Field], bool]) -> frozenset[int]:
    return frozenset(
        word // WORD_BYTES
        for field in fields
        if permits(field)
        for word in range(field.offset, field.offset + field.size, WORD_BYTES)
    )


# By number of the 32-bit word in the context. Firmware may read and write all of them but the live ones, which nobody
# writes: there a write is an access outside every window.
SK_BUFF_READABLE = _words(SK_BUFF, lambda field: field.readable)
SK_BUFF_WRITABLE = _words(SK_BUFF, lambda field: bool(field.writable))
SK_BUFF_LIVE = _words(SK_BUFF, lambda field: field.live)
SK_BUFF_HALVES = _words(SK_BUFF, lambda field: field.writable == 2)
"""Words of which a write keeps the lower two bytes."""
