"""What several tests of the command line run: shipped programs, and one of their own."""

from importlib import resources

FIRMWARE = resources.files("bpfnic.firmware")
PORTFILTER, COUNTER = (str(FIRMWARE / "programs" / f"{name}.bpf.c") for name in ("portfilter", "counter"))

BY_PORT = """
const volatile __u32 drop_from = 2;
struct choice { __u16 verdict; __u16 hits; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 9); __type(key, __u32); __type(value, struct choice); }
    choices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 9); __type(key, __u16); __type(value, __u16); }
    table SEC(".maps");
SEC("xdp") int by_port(struct xdp_md *ctx)
{
    __u32 key = ctx->ingress_ifindex;
    if (key >= drop_from)
        return XDP_DROP;
    struct choice *choice = bpf_map_lookup_elem(&choices, &key);
    return choice ? choice->verdict : XDP_ABORTED;
}
"""
