"""The Python API of maps that are no dictionaries of plain values."""

import pytest

from bpfnic.host.nic import Nic
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import XdpAction

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
"""
QUEUE = HEAD + """
struct job { __u16 number, size; };
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 2); __type(value, struct job); } jobs SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	struct job job = {};
	bpf_map_pop_elem(&jobs, &job);
	job.number++;
	bpf_map_push_elem(&jobs, &job, 0);
	return XDP_PASS;
}
"""
backends = pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])


@backends
def test_a_queue_is_pushed_and_popped(build, backend):
    with Nic(backend) as nic:
        program = nic.load(build(QUEUE))
        jobs = nic.maps["jobs"]
        for take in (jobs.pop, jobs.peek):
            with pytest.raises(IndexError, match="map 'jobs' is empty"):
                take()
        jobs.push({"number": 7, "size": 60})
        assert program.test_run(bytes(64)).retval == 2
        assert jobs.peek() == {"number": 8, "size": 60}
        jobs.push({"number": 1, "size": 1})
        with pytest.raises(OSError, match="Argument list too long"):
            jobs.push({"number": 2, "size": 2})
        jobs.push({"number": 2, "size": 2}, replace=True)
        assert [jobs.pop()["number"] for _ in range(2)] == [1, 2]


OUTER = HEAD + """
struct rates { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u16); __type(value, __u64); };
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__type(key, __u16);
	__array(values, struct rates);
} tenants SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u16 tenant = 7, kind = 1;
	void *rates = bpf_map_lookup_elem(&tenants, &tenant);
	__u64 *count = rates ? bpf_map_lookup_elem(rates, &kind) : 0;
	if (!count)
		return XDP_DROP;
	__sync_fetch_and_add(count, 1);
	return XDP_PASS;
}
"""


@backends
def test_maps_are_put_into_a_map(build, backend):
    with Nic(backend) as nic:
        program = nic.load(build(OUTER))
        tenants = nic.maps["tenants"]
        with pytest.raises(KeyError):
            tenants[7]
        assert program.test_run(bytes(64)).action == XdpAction.XDP_DROP
        first, second = tenants.new(), tenants.new(max_entries=20)
        first[1], second[1] = 100, 200
        tenants[7] = first
        assert tenants[7] is first and list(tenants) == [7] and len(tenants) == 1
        assert program.test_run(bytes(64)).action == XdpAction.XDP_PASS and first[1] == 101
        with pytest.raises(BpfnicError, match="map tenants.inner is in map tenants, at 7"):
            tenants.free(first)
        tenants[7] = second
        tenants.free(first)
        assert program.test_run(bytes(64)).action == XdpAction.XDP_PASS and second[1] == 201
        with pytest.raises(BpfnicError, match="is no map that its new\\(\\) made"):
            tenants[7] = first
        del tenants[7]
        assert program.test_run(bytes(64)).action == XdpAction.XDP_DROP
        tenants[7] = second
        program.unload()
        assert nic.maps == {} and nic.device._maps == []


@backends
def test_entries_in_batches_and_frozen(build, backend):
    text = OUTER.replace("} tenants", "} unused").replace("&tenants, &tenant", "&unused, &tenant") + \
        """struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u16); __type(value, __u32); }
        limits SEC(".maps");
        SEC("xdp") int reads(struct xdp_md *ctx) { __u16 key = 3; __u32 *found = bpf_map_lookup_elem(&limits, &key);
        return found ? *found : 0; }"""
    with Nic(backend) as nic:
        reads = nic.load(build(text), "reads")
        limits = nic.maps["limits"]
        limits.update_batch([(1, 10), (3, 1), (5, 50)])
        limits.delete_batch([5])
        assert sorted(limits.lookup_batch()) == [(1, 10), (3, 1)]
        limits.freeze()
        with pytest.raises(PermissionError):
            limits[3] = 2
        assert limits[3] == 1 and reads.test_run(bytes(64)).retval == 1
