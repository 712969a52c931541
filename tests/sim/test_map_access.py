"""RDONLY_PROG and WRONLY_PROG: what programs may not do is refused when they are loaded, on golden as by the kernel."""

import pytest

from bpfnic.host.nic import Nic
from bpfnic.spec.errors import BpfnicError

everywhere = pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} readable SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_WRONLY_PROG);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} writable SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 4);
	__type(value, __u64);
} queue SEC(".maps");
volatile const __u64 limits[4] = {1, 2, 3, 4};

SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 key = ctx->data_end - ctx->data & 3;
	__u64 value = 0, *found;
	BODY
	return XDP_PASS;
}
"""
READABLE = "found = bpf_map_lookup_elem(&readable, &key);"
WRITABLE = "found = bpf_map_lookup_elem(&writable, &key);"
FINE = [
    f"{READABLE} if (found && *found) return XDP_DROP;",
    f"{WRITABLE} if (found) *(volatile __u64 *)found = 7;",
    "bpf_map_update_elem(&writable, &key, &value, 0);",
    "bpf_map_peek_elem(&queue, &value);",
    "if (limits[key] == 9) return XDP_DROP;",
]
REFUSED = [
    (f"{READABLE} if (found) *(volatile __u64 *)found = 7;", "Values of map readable may not be written by programs"),
    (f"{READABLE} if (found) __sync_fetch_and_add(found, 1);", "Values of map readable may not be written by programs"),
    ("bpf_map_update_elem(&readable, &key, &value, 0);", "Values of map readable may not be written by programs"),
    ("bpf_map_delete_elem(&readable, &key);", "Values of map readable may not be written by programs"),
    ("bpf_map_push_elem(&queue, &value, 0);", "Values of map queue may not be written by programs"),
    ("bpf_map_pop_elem(&queue, &value);", "Values of map queue may not be written by programs"),
    (f"{WRITABLE} if (found && *(volatile __u64 *)found) return XDP_DROP;",
     "Values of map writable may not be read by programs"),
    (f"{WRITABLE} if (found) __sync_fetch_and_add(found, 1);", "Values of map writable may not be read by programs"),
    ('asm volatile("*(u64 *)(%0 + 8) = %1" : : "r"(limits), "r"(value) : "memory");',
     r"Values of map \.rodata may not be written by programs"),
]  # fmt: skip


@everywhere
@pytest.mark.parametrize("body", FINE)
def test_what_is_allowed_runs(build, backend, body):
    with Nic(backend) as nic:
        assert nic.load(build(PROGRAM, define=[f"BODY={body}"])).test_run(bytes(64)).retval == 2


@everywhere
@pytest.mark.parametrize(("body", "why"), REFUSED)
def test_what_is_not_is_refused(build, backend, body, why):
    if backend == "linux":
        why = "the kernel's verifier refuses it: .*(forbidden|Permission denied)"
    with Nic(backend) as nic, pytest.raises(BpfnicError, match=rf"program program, instruction \d+.*: .*{why}"):
        nic.load(build(PROGRAM, define=[f"BODY={body}"]))


def test_inner_maps_are_followed(build):
    text = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(map_flags, BPF_F_RDONLY_PROG); __uint(max_entries, 4);
                   __type(key, __u32); __type(value, __u64); };
    struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
             __array(values, struct inner); } outer SEC(".maps");
    SEC("xdp") int program(struct xdp_md *ctx)
    {
        __u32 key = 0;
        void *inner = bpf_map_lookup_elem(&outer, &key);
        return inner ? bpf_map_delete_elem(inner, &key) : 0;
    }"""
    with Nic("golden") as nic, pytest.raises(BpfnicError, match="map outer.inner may not be written by programs"):
        nic.load(build(text))


def test_a_pointer_from_two_maps_is_followed_on_both_ways(build):
    body = f"{READABLE} if (!found) {{ {WRITABLE} }} if (found) *(volatile __u64 *)found = 1;"
    with Nic("golden") as nic, pytest.raises(BpfnicError, match="Values of map readable may not be written"):
        nic.load(build(PROGRAM, define=[f"BODY={body}"]))
