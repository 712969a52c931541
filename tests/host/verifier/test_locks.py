"""Spin locks, whose place only a map's BTF tells: each program is judged by the kernel too. And what a device-bound
program may store."""

import re

import pytest

from bpfnic.host.linux.verdict import judge
from bpfnic.host.verifier.verdict import Subject, verify
from tests.host.conftest import HEADER
from tests.host.verifier.subjects import subject

SOURCE = HEADER + """
struct value { __u64 count; struct bpf_spin_lock lock; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, struct value); __uint(max_entries, 1); }
  values SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
    __u32 key = 0;
    struct value *value = bpf_map_lookup_elem(&values, &key);
    if (!value)
        return XDP_DROP;
    %s
    return XDP_PASS;
}
"""
CASES = {
    "lock, change, unlock": ("bpf_spin_lock(&value->lock); value->count++; bpf_spin_unlock(&value->lock);", None),
    "kept": ("bpf_spin_lock(&value->lock); value->count++;", "inside bpf_spin_lock-ed region"),
    "twice": ("bpf_spin_lock(&value->lock); bpf_spin_lock(&value->lock);",
              "Locking two bpf_spin_locks are not allowed|function calls are not allowed while holding a lock"),
    "a helper meanwhile": ("bpf_spin_lock(&value->lock); value->count = bpf_ktime_get_ns(); "
                           "bpf_spin_unlock(&value->lock);", "function calls are not allowed while holding a lock"),
    "not taken": ("bpf_spin_unlock(&value->lock);", "bpf_spin_unlock without taking a lock"),
    "read": ("key = *(volatile __u32 *)&value->lock;", "bpf_spin_lock cannot be accessed directly by load/store"),
    "elsewhere": ("bpf_spin_lock((struct bpf_spin_lock *)&value->count);", "doesn't point to 'struct bpf_spin_lock'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_locks(build, name):
    text, error = CASES[name]
    verdict = verify(Subject.of(object := build(SOURCE % text), object.program()))
    assert (verdict.error and verdict.error.message) == error or re.search(error, verdict.error.message)


@pytest.mark.linux
@pytest.mark.parametrize("name", CASES)
def test_locks_in_the_kernel(build, name):
    text, error = CASES[name]
    verdict = judge(Subject.of(object := build(SOURCE % text), object.program()))
    assert verdict.accepted == (error is None), verdict.log
    assert error is None or re.search(error, verdict.log), verdict.log


def test_a_device_bound_program_may_choose_the_queue():
    text = "r0 = 2\n*(u32 *)(r1 + 16) = r0\nexit"
    assert verify(subject(text, device_bound=True)).accepted
    assert not verify(subject(text)).accepted


def test_egress_ifindex_is_for_programs_of_devmaps():
    text = "r0 = *(u32 *)(r1 + 20)\nexit"
    assert verify(subject(text, attach="devmap")).accepted
    assert not verify(subject(text)).accepted


@pytest.mark.linux
def test_egress_ifindex_in_the_kernel():
    assert judge(subject("r0 = *(u32 *)(r1 + 20)\nexit", attach="devmap")).accepted
