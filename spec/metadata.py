"""Receive metadata: what the NIC says of a frame as it came in, which programs ask for by the kernel's functions
bpf_xdp_metadata_rx_timestamp, _rx_hash and _rx_vlan_tag (include/net/xdp.h, net/core/xdp.c).

The functions are routines of the runtime (firmware/runtime/); what they ask the NIC are helpers of its own, whose
numbers no helper of Linux has (Linux has frozen its list). A NIC without them answers -EOPNOTSUPP.
"""

from enum import IntEnum, IntFlag


class Metadata(IntEnum):
    """Helpers without arguments, by number, and what they return."""

    RX_TIMESTAMP = 253
    """When the frame's last beat came: nanoseconds of the clock that bpf_ktime_get_ns reads."""
    RX_HASH = 254
    """Bits 31..0 the RSS hash, bits 38..32 its RssType; 0 where there is none."""
    RX_VLAN_TAG = 255
    """Bits 15..0 the outer tag's TCI, bits 31..16 its TPID; 0 where there is none."""


FUNCTIONS = {f"bpf_xdp_metadata_{each.name.lower()}": each for each in Metadata}
"""By the name of the kernel's function, for XDP programs alone."""


class RssType(IntFlag):
    """`enum xdp_rss_hash_type`: what was hashed."""

    L3_IPV4 = 1 << 0
    L3_IPV6 = 1 << 1
    L4 = 1 << 3
    L4_TCP = 1 << 4
    L4_UDP = 1 << 5
    L4_SCTP = 1 << 6


RSS_TYPE_BIT = 32
TPID_BIT = 16

KEPT_BYTES = 128
"""Of each frame as it came in: what lies behind them isn't looked at."""

TPIDS = (0x8100, 0x88A8)
"""Tag protocol identifiers of IEEE 802.1Q: a customer's tag, a service's tag."""

RSS_KEY_BYTES = 40
RSS_KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)
"""What the driver sets to begin with: the key of Microsoft's verification suite for receive-side scaling."""
