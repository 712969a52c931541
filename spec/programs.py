"""Program types: their context's fields and their verdicts (names as in linux/bpf.h)."""

from dataclasses import dataclass
from enum import IntEnum


class ProgramType(IntEnum):
    """`enum bpf_prog_type`, the ones that run on a NIC."""

    SOCKET_FILTER = 1
    SCHED_CLS = 3
    XDP = 6


class XdpAction(IntEnum):
    """`enum xdp_action`. Anything above is counted as aborted (kernel: bpf_warn_invalid_xdp_action)."""

    XDP_ABORTED = 0
    XDP_DROP = 1
    XDP_PASS = 2
    XDP_TX = 3
    XDP_REDIRECT = 4


@dataclass(frozen=True)
class Field:
    """One member of a context: byte offset and size in bytes."""

    name: str
    offset: int
    size: int = 4


# struct xdp_md. data, data_end and data_meta are addresses of the packet window.
XDP_MD = (
    Field("data", 0),
    Field("data_end", 4),
    Field("data_meta", 8),
    Field("ingress_ifindex", 12),
    Field("rx_queue_index", 16),
    Field("egress_ifindex", 20),
)
