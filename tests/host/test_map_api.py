"""The Python API of maps that are no dictionaries of plain values."""

import json

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
        with pytest.raises(BpfnicError, match="is no map on this NIC"):
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


VALUES = HEAD + """
struct rates { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); };
struct rates slow SEC(".maps"), fast SEC(".maps");
struct {
	__uint(type, KIND);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, struct rates);
} tenants SEC(".maps") = { .values = { [1] = &slow, [3] = &fast } };
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 tenant = 3, first = 0;
	void *rates = bpf_map_lookup_elem(&tenants, &tenant);
	__u64 *count = rates ? bpf_map_lookup_elem(rates, &first) : 0;
	if (count)
		++*count;
	return XDP_PASS;
}
"""


@backends
@pytest.mark.parametrize("kind", ["ARRAY_OF_MAPS", "HASH_OF_MAPS"])
def test_what_the_object_puts_into_a_map_of_maps(build, backend, kind):
    with Nic(backend) as nic:
        program = nic.load(build(VALUES, define=[f"KIND=BPF_MAP_TYPE_{kind}"]))
        tenants = nic.maps["tenants"]
        assert tenants[1] is nic.maps["slow"] and sorted(tenants) == [1, 3]
        program.test_run(bytes(64))
        assert (nic.maps["slow"][0], nic.maps["fast"][0]) == (0, 1)
        with pytest.raises(BpfnicError, match="no map that its new"):
            tenants.free(nic.maps["fast"])
        tenants[3] = nic.maps["slow"]
        program.test_run(bytes(64))
        assert (nic.maps["slow"][0], nic.maps["fast"][0]) == (1, 1)
        program.unload()
        assert nic.maps == {} and nic.device._maps == []


def test_an_initial_value_that_is_no_map_of_that_kind(build):
    hash = VALUES[VALUES.index("struct rates {") : VALUES.index("struct rates slow")].replace("ARRAY", "HASH")
    other = VALUES.replace("struct rates slow", hash.replace("struct rates", "struct").strip(" ;\n") + " slow")
    other = other.replace(", fast SEC", "; struct rates fast SEC")
    with Nic("golden") as nic:
        with pytest.raises(BpfnicError, match="map 'tenants': map slow at 1: .*: type is HASH, not ARRAY"):
            nic.load(build(other.replace("&slow", "(void *)&slow"), define=["KIND=BPF_MAP_TYPE_ARRAY_OF_MAPS"]))
        assert nic.maps == {} and nic.device._maps == []


def test_the_command_line_fills_and_shows_them(build, bpfnic, samples, tmp_path):
    program, rules = tmp_path / "program.bpf.c", tmp_path / "rules.json"
    queue = QUEUE.split("SEC(\"xdp\")")[0].removeprefix(HEAD)
    push = "struct job job; bpf_map_peek_elem(&jobs, &job); return XDP_PASS;"
    program.write_text(VALUES.replace("struct rates {", queue + "struct rates {").replace("return XDP_PASS;", push))
    rules.write_text('{"fast": {"1": 5}, "jobs": [{"key": "", "value": {"number": 3, "size": 4}}]}')
    arguments = ["run", program, "-D", "KIND=BPF_MAP_TYPE_HASH_OF_MAPS", "--pcap", samples / "mixed.pcapng",
                 "--backend", "golden", "--map", rules]  # fmt: skip
    status, out, err = bpfnic(*arguments, "--json")
    assert (status, err) == (0, "")
    maps = json.loads(out)["maps"]
    assert maps["tenants"]["entries"] == [{"key": 1, "value": "slow"}, {"key": 3, "value": "fast"}]
    assert maps["jobs"]["entries"] == [{"key": "", "value": {"number": 3, "size": 4}}]
    assert [entry["value"] for entry in maps["fast"]["entries"]][1] == 5
    rules.write_text('{"tenants": {"1": 5}}')
    status, _, err = bpfnic(*arguments)
    assert status == 2 and "map 'tenants': key 1: map tenants takes maps" in err
