"""What docs/helpers.md says of helpers besides their rows: errors, and where they differ from Linux 6.18."""

_PACKET = {"EFAULT": "offset or length above 0xffff", "EINVAL": "they reach beyond the packet"}
_KEYED = {
    "EINVAL": "an unknown flag",
    "EEXIST": "BPF_NOEXIST, and the key is there",
    "ENOENT": "BPF_EXIST, and it isn't",
    "E2BIG": "the map is full, or the index beyond an array",
    "ENOSPC": "an LPM_TRIE is full",
}
_NUMBER = {
    "EINVAL": "another base than 0, 8, 10 and 16; a flag; no digits",
    "ERANGE": "the number has more than 64 bits",
}
_FIB = {
    "EINVAL": "plen below 64; an unknown flag",
    "EAFNOSUPPORT": "neither AF_INET nor AF_INET6",
    "ENODEV": "no link with that ifindex",
}

_FLAG = {"EINVAL": "an unknown flag"}
_SUM = {
    "EINVAL": "an unknown flag; a size of the field other than 2 and 4; no size, and an old value",
    "EFAULT": "an odd offset, one above 0xffff or beyond the packet",
}
_ROOM = {"ENOMEM": "less than 40 bytes would be left before the packet"}

ERRORS: dict[str, dict[str, str]] = {
    "map_update_elem": _KEYED,
    "map_delete_elem": {"ENOENT": "no such key", "EINVAL": "an array; a prefix that is too long"},
    "map_push_elem": {"EINVAL": "another flag than BPF_EXIST", "E2BIG": "the map is full"},
    "map_pop_elem": {"ENOENT": "the map is empty; the value is zeros"},
    "map_peek_elem": {"ENOENT": "the map is empty; the value is zeros"},
    "xdp_adjust_head": {"EINVAL": "less than 40 bytes before the packet and its metadata, or less than 14 in it"},
    "xdp_adjust_tail": {"EINVAL": "less than 14 bytes, or beyond the buffer less 320"},
    "xdp_adjust_meta": {"EINVAL": "behind the packet's start, or less than 40 bytes before the metadata",
                        "EACCES": "not a multiple of 4, or more than 255 bytes of it"},
    "redirect": {"(XDP_ABORTED, TC_ACT_SHOT)": "a flag"},
    "clone_redirect": _FLAG | {"EINVAL": "an unknown flag; no port with that ifindex", "ENOMEM": "no buffer is free; "
                               "no headroom for the tag", "ENETDOWN": "sent on or cloned more than 9 times in a row"},
    "redirect_map": {"(the flags' lower two bits)": "no entry", "(XDP_ABORTED)": "an unknown flag"},
    "perf_event_output": {"EINVAL": "an unknown flag", "E2BIG": "an index beyond the map",
                          "ENOENT": "no entry", "EOPNOTSUPP": "another CPU's", "EFAULT": "more than the packet",
                          "ENOSPC": "no room"},
    "ringbuf_output": {"EINVAL": "an unknown flag", "EAGAIN": "no room"},
    "ringbuf_reserve": {"(NULL)": "no room; a flag"},
    "xdp_load_bytes": _PACKET,
    "xdp_store_bytes": _PACKET,
    "strtol": _NUMBER | {"ERANGE": "the number isn't one of 64 bits with a sign"},
    "strtoul": _NUMBER | {"EINVAL": _NUMBER["EINVAL"] + "; a minus"},
    "loop": {"EINVAL": "a flag", "E2BIG": "more than 8,388,608 times"},
    "for_each_map_elem": {"EINVAL": "a flag; a map that is no array, HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH"},
    "map_lookup_percpu_elem": {"(NULL)": "no such key or CPU; a map that all CPUs share"},
    "trace_printk": {"EINVAL": "a format that the kernel refuses; more conversions than 3", "ENOSPC": "strings and "
                     "addresses of more than 512 bytes"},
    "trace_vprintk": {"EINVAL": "the same, of 12; a length that isn't a multiple of 8", "ENOSPC": "the same"},
    "skb_load_bytes": {"EFAULT": "beyond the packet; what was asked for is zeros"},
    "skb_load_bytes_relative": {"EFAULT": "beyond the packet; an offset above 0xffff; an unknown header"},
    "skb_store_bytes": _FLAG | {"EFAULT": "beyond the packet"},
    "l3_csum_replace": _SUM,
    "l4_csum_replace": _SUM,
    "skb_pull_data": {"ENOMEM": "beyond the packet"},
    "skb_change_tail": {"EINVAL": "a flag; less than the headers; beyond the buffer less 320",
                        "ENOTSUPP": "behind bpf_skb_adjust_room with an ENCAP flag"},
    "skb_change_head": {"EINVAL": "a flag; a length below 0"} | _ROOM,
    "skb_change_proto": {"EINVAL": "a flag", "ENOTSUPP": "not from IPv4 to IPv6, or back",
                         "ENOMEM": "no headroom; a packet that is too short"},
    "skb_change_type": {"EINVAL": "a type above PACKET_OTHERHOST"},
    "skb_adjust_room": {"EINVAL": "an unknown flag; flags that exclude each other, or go with the other direction",
                        "EFAULT": "more than 4,095 bytes", "EALREADY": "a second encapsulation",
                        "ENOTSUPP": "neither IPv4 nor IPv6; an unknown mode; less than a header would be left"} | _ROOM,
    "skb_vlan_push": _ROOM,
    "skb_vlan_pop": {"ENOMEM": "a tag that is cut off"},
    "csum_update": {"ENOTSUPP": "always: nobody has summed the packet"},
    "csum_level": {"EACCES": "BPF_CSUM_LEVEL_QUERY, and no sum needs no check", "EINVAL": "an unknown operation"},
    "skb_get_tunnel_key": {"EINVAL": "an unknown flag or size; the program has set none",
                           "EPROTO": "one of the other family"},
    "skb_set_tunnel_key": {"EINVAL": "an unknown flag or size; `tunnel_ext`; a label, and no BPF_F_TUNINFO_IPV6"},
    "skb_set_tstamp": {"EOPNOTSUPP": "neither IPv4 nor IPv6", "EINVAL": "an unknown clock; 0, and not the real time's"},
    "fib_lookup": _FIB,
    "check_mtu": {"EINVAL": "an unknown flag; BPF_MTU_CHK_SEGS with a length", "ENODEV": "no link with that ifindex"},
    "redirect_neigh": {"(TC_ACT_SHOT)": "a flag; plen above 0 and below 20"},
}  # fmt: skip
"""By helper, for each error (or what it returns instead) when."""

STACK: dict[str, int] = {
    **{"strtol": 16, "strtoul": 16, "for_each_map_elem": 112, "loop": 16},
    **{"map_lookup_percpu_elem": 16, "ktime_get_tai_ns": 16},
}
"""Bytes of the program's stack that library functions take, where they take any."""

_SAYS_SUM = "Nobody has summed the packet (CHECKSUM_NONE): flags that say how to keep such a sum do nothing."

_HEADROOM = "Linux makes room where there is none."

NOTES: dict[str, str] = {
    "fib_lookup": "[network.md](network.md) says where its routes are from, and where it differs.",
    "check_mtu": "[network.md](network.md)",
    "redirect_neigh": "[network.md](network.md). A packet whose neighbour isn't known is dropped.",
    "redirect": "In tc programs it is a privileged routine. With BPF_F_INGRESS the packet comes in by that port, at "
    "its tcx/ingress.",
    "clone_redirect": "A privileged routine around the hardware's, which copies 8 bytes in 5 clocks. 0 as soon as "
    "there is a clone, whatever becomes of it. With BPF_F_INGRESS it comes in by that port, at its tcx/ingress.",
    "skb_store_bytes": _SAYS_SUM,
    "l4_csum_replace": _SAYS_SUM,
    "skb_pull_data": "All of a packet is there, and may be written.",
    "get_hash_recalc": "The same in both directions of a flow, and not secret.",
    "skb_get_tunnel_key": "No port is a tunnel: what a program has set, with its own end as the remote one.",
    "skb_set_tunnel_key": "Tells the program alone.",
    "csum_diff": "Linux before 6.15 returned the sum of 32 bits on some machines and took multiples of 4 alone; 6.18 "
    "folds it to 16 bits and takes any length.",
    "jiffies64": "250 a second, from 0 when the NIC starts.",
    "ktime_get_tai_ns": "The NIC's clock and what the driver says atomic time is ahead of it "
    "(`nic.device.set_tai_offset`); until it does that is 0.",
    "get_numa_node_id": "Always 0.",
    "loop": "Its callback takes a frame too.",
    "for_each_map_elem": "Its callback takes a frame too, and gets a copy of the key ([maps.md](maps.md)).",
    "trace_printk": "What finds no room in the ring of 4,096 bytes is lost; the host shows lines (`bpfnic run`, "
    "`nic.trace`). Symbols (`%ps`) are shown as numbers, pointers as they are. A format may have text in UTF-8: so "
    "have later releases of Linux 6.18.",
    "trace_vprintk": "As bpf_trace_printk.",
    "strncmp": "The second string needn't be a constant here.",
    "skb_change_head": _HEADROOM,
    "skb_adjust_room": _HEADROOM,
    "skb_vlan_push": _HEADROOM,
    "skb_change_proto": _HEADROOM,
    "skb_change_tail": "Linux grows a packet up to its link's longest.",
    "redirect_map": "BPF_F_BROADCAST is unknown: a packet leaves once.",
    "tail_call": "At most 33 for a packet; then it goes on behind the call.",
}
"""By helper, what a user should know."""
