// SPDX-License-Identifier: BSD-2-Clause
//
// Takes the head of one packet in `one_in`, and passes everything on. Shows records on their way to the host: reserved in
// a ring buffer, filled in place, and handed over whole, in order of reservation. A counter that all CPUs share says
// which packets: every one_in-th, whoever has it. A sample that finds the ring full is counted and given up.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define HEAD_BYTES 64
#define RING_BYTES 16384 // a power of two of pages

const volatile __u32 one_in = 64;

struct sample {
	__u64 time; // ns, bpf_ktime_get_ns
	__u32 ifindex; // by which it came
	__u32 length; // of the packet
	__u8 head[HEAD_BYTES]; // zeros behind a shorter one
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} samples SEC(".maps");

__u32 packets; // seen
__u32 lost; // samples, for want of room

// Not inlined, so that the compiler keeps the type for the host: nic.maps["samples"].of("sample").
static __noinline void fill(struct sample *sample, struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end, *head = sample->head;
	int i = 0;

	sample->time = bpf_ktime_get_ns();
	sample->ifindex = ctx->ingress_ifindex;
	sample->length = data_end - data;
	__builtin_memset(sample->head, 0, HEAD_BYTES);
	// By words: packets leave in order, and those behind a sampled one wait for it.
#pragma clang loop unroll(disable)
	for (; i < HEAD_BYTES && data + i + 8 <= data_end; i += 8)
		*(__u64 *)(head + i) = *(__u64 *)(data + i);
#pragma clang loop unroll(disable)
	for (; i < HEAD_BYTES && data + i + 1 <= data_end; i++)
		*(__u8 *)(head + i) = *(__u8 *)(data + i);
}

SEC("xdp")
int sampler(struct xdp_md *ctx)
{
	struct sample *sample;

	// Not __ATOMIC_RELAXED: clang 22 forgets the old value then (llvm-project issue 210280).
	if (__sync_fetch_and_add(&packets, 1) % one_in)
		return XDP_PASS;

	sample = bpf_ringbuf_reserve(&samples, sizeof(*sample), 0);
	if (!sample) {
		__atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
		return XDP_PASS;
	}
	fill(sample, ctx);
	bpf_ringbuf_submit(sample, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
