"""What a program may give a privileged routine a pointer to: of what lies below packets, its own stack alone. The
firmware's half of the stack's window and the context's words get -EFAULT (bpf_redirect_neigh, whose result is a
verdict: TC_ACT_SHOT), and nothing is read or written there. A verifier refuses such programs: these have none."""

from errno import EFAULT

import pytest

import bpfnic
from bpfnic.spec import addresses

TC_ACT_SHOT = 2
HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64[2]); }
	asked SEC(".maps");
"""
# What programs can see of an skb context is the same behind the call, and what they write there is kept.
TC = HEAD + """
SEC("tc") int program(struct __sk_buff *skb)
{
	__u32 zero = 0, before, hash;
	__u64 *words = bpf_map_lookup_elem(&asked, &zero);

	if (!words)
		return 3;
	void *pointer = (void *)words[0];
	skb->mark = 0x1234;
	hash = bpf_get_hash_recalc(skb);
	words[1] = CALL;
	return skb->mark == 0x1234 && skb->hash == hash && skb->vlan_tci == 0 && skb->pkt_type == 0 ? 0 : 4;
}
"""
XDP = HEAD + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *words = bpf_map_lookup_elem(&asked, &zero);

	if (!words)
		return 0;
	void *pointer = (void *)words[0];
	words[1] = CALL;
	return XDP_PASS;
}
"""
TC_CALLS = {
    "skb_load_bytes": "bpf_skb_load_bytes(skb, 0, pointer, 16)",
    "skb_load_bytes, beyond": "bpf_skb_load_bytes(skb, 60, pointer, 16)",
    "skb_load_bytes_relative": "bpf_skb_load_bytes_relative(skb, 0, pointer, 16, 0)",
    "skb_store_bytes": "bpf_skb_store_bytes(skb, 0, pointer, 16, 0)",
    "skb_set_tunnel_key": "bpf_skb_set_tunnel_key(skb, pointer, sizeof(struct bpf_tunnel_key), 0)",
    "skb_get_tunnel_key": "bpf_skb_get_tunnel_key(skb, pointer, sizeof(struct bpf_tunnel_key), 0)",
    "fib_lookup": "bpf_fib_lookup(skb, pointer, 64, 0)",
    "redirect_neigh": "bpf_redirect_neigh(1, pointer, sizeof(struct bpf_redir_neigh), 0)",
    "check_mtu": "bpf_check_mtu(skb, 1, pointer, 0, 0)",
    "trace_printk": "bpf_trace_printk(pointer, 16)",
    "trace_vprintk": "({ static const char text[] = \"%d %d\"; bpf_trace_vprintk(text, sizeof text, pointer, 16); })",
    "trace_vprintk, format": "bpf_trace_vprintk(pointer, 16, 0, 0)",
}
XDP_CALLS = {
    "fib_lookup": "bpf_fib_lookup(ctx, pointer, 64, 0)",
    "check_mtu": "bpf_check_mtu(ctx, 1, pointer, 0, 0)",
    "trace_printk": "bpf_trace_printk(pointer, 16)",
}
STACK_TOP = addresses.STACK_TOP
POINTERS = {
    "skb words": STACK_TOP + 8,
    "firmware stack": addresses.FIRMWARE_STACK_TOP - 128,
    "across the program's stack's end": STACK_TOP - 8,
    "skb context": addresses.SKB_CONTEXT + 8,
    "hash": addresses.SKB_CONTEXT + 68,
    "words that programs don't see": addresses.SKB_CONTEXT + 192,
    "xdp context": addresses.CONTEXT,
    "nowhere": 64,
}


def ask(nic, pointer: int) -> tuple[int, str]:
    nic.maps["asked"][0] = [pointer, 0]
    run = nic.programs["program"].test_run(bytes(range(64)))
    result = nic.maps["asked"][0][1]
    return result - (1 << 64) if result >> 63 else result, run


@pytest.mark.parametrize("name", TC_CALLS)
def test_tc(build, name):
    with bpfnic.Nic("golden") as nic:
        nic.load(build(TC.replace("CALL", TC_CALLS[name])), unsafe=True)
        for what, pointer in POINTERS.items():
            if name == "check_mtu" and what.startswith("across"):
                continue  # of 4 bytes none lies there
            result, run = ask(nic, pointer)
            assert result == (TC_ACT_SHOT if name == "redirect_neigh" else -EFAULT), what
            assert run.retval == 0, what


@pytest.mark.parametrize("name", XDP_CALLS)
def test_xdp(build, name):
    with bpfnic.Nic("golden") as nic:
        nic.load(build(XDP.replace("CALL", XDP_CALLS[name])), unsafe=True)
        for what, pointer in POINTERS.items():
            if name == "check_mtu" and what.startswith("across"):
                continue
            result, run = ask(nic, pointer)
            assert (result, run.action.name) == (-EFAULT, "XDP_PASS"), what


@pytest.mark.parametrize("pointer", [STACK_TOP - 16, addresses.PACKET + addresses.HEADROOM + 4])
def test_what_is_the_programs_is_taken(build, pointer):
    """Up to the stack's last byte."""
    for text, call in ((TC, TC_CALLS["skb_load_bytes"]), (TC, TC_CALLS["skb_store_bytes"])):
        with bpfnic.Nic("golden") as nic:
            nic.load(build(text.replace("CALL", call)), unsafe=True)
            assert ask(nic, pointer)[0] == 0
