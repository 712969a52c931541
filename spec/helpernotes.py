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

ERRORS: dict[str, dict[str, str]] = {
    "map_update_elem": _KEYED,
    "map_delete_elem": {"ENOENT": "no such key", "EINVAL": "an array; a prefix that is too long"},
    "map_push_elem": {"EINVAL": "another flag than BPF_EXIST", "E2BIG": "the map is full"},
    "map_pop_elem": {"ENOENT": "the map is empty; the value is zeros"},
    "map_peek_elem": {"ENOENT": "the map is empty; the value is zeros"},
    "xdp_adjust_head": {"EINVAL": "less than 40 bytes before the packet and its metadata, or less than 14 in it"},
    "xdp_adjust_tail": {"EINVAL": "less than 14 bytes, or beyond the buffer less 320"},
    "xdp_adjust_meta": {"ENOTSUPP": "no metadata here",
                        "EACCES": "not a multiple of 4, more than 216, before the buffer"},
    "redirect": {"(XDP_ABORTED)": "a flag"},
    "redirect_map": {"(the flags' lower two bits)": "no entry", "(XDP_ABORTED)": "an unknown flag"},
    "csum_diff": {"EINVAL": "a length of which the kernel takes none"},
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
    "for_each_map_elem": {"EINVAL": "a flag; a map that is no array"},
    "map_lookup_percpu_elem": {"(NULL)": "no such key or CPU; a map that all CPUs share"},
    "trace_printk": {"EINVAL": "a format that the kernel refuses; more conversions than 3", "ENOSPC": "strings and "
                     "addresses of more than 512 bytes"},
    "trace_vprintk": {"EINVAL": "the same, of 12; a length that isn't a multiple of 8", "ENOSPC": "the same"},
    "fib_lookup": _FIB,
    "check_mtu": {"EINVAL": "an unknown flag; a length below 0", "ENODEV": "no link with that ifindex"},
}  # fmt: skip
"""By helper, for each error (or what it returns instead) when."""

STACK: dict[str, int] = {
    **{"trace_printk": 128, "trace_vprintk": 96, "fib_lookup": 128, "check_mtu": 16},
    **{"strtol": 16, "strtoul": 16, "for_each_map_elem": 32, "loop": 16},
    **{"map_lookup_percpu_elem": 16, "ktime_get_tai_ns": 16},
}
"""Bytes of the program's stack that library functions take, where they take any."""

NOTES: dict[str, str] = {
    "csum_diff": "Linux before 6.15 returned the sum of 32 bits on some machines and took multiples of 4 alone; 6.18 "
    "folds it to 16 bits and takes any length.",
    "jiffies64": "250 a second, from 0 when the NIC starts.",
    "ktime_get_tai_ns": "The NIC's clock and what the driver says atomic time is ahead of it "
    "(`nic.device.set_tai_offset`); until it does that is 0.",
    "get_numa_node_id": "Always 0.",
    "loop": "Its callback takes a frame too.",
    "for_each_map_elem": "Arrays alone: the keys of other maps lie where no program can walk. Its callback takes a "
    "frame too.",
    "trace_printk": "What finds no room in the ring of 4,096 bytes is lost; the host shows lines (`bpfnic run`, "
    "`nic.trace`). Symbols (`%ps`) are shown as numbers, pointers as they are.",
    "trace_vprintk": "As bpf_trace_printk.",
    "strncmp": "The second string needn't be a constant here.",
    "redirect_map": "BPF_F_BROADCAST is unknown: a packet leaves once.",
    "tail_call": "At most 33 for a packet; then it goes on behind the call.",
}
"""By helper, what a user should know."""
