"""The Python API of maps that are no dictionaries of plain values."""

import pytest

from bpfnic.host.nic import Nic

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
