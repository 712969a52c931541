/* Tail calls from functions, which together take all of the 8 frames and all of the
   512 bytes: a byte that changes an index, or what a function uses,
   makes them too deep. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int middle(struct xdp_md *ctx), last(struct xdp_md *ctx), again(struct xdp_md *ctx);
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__array(values, int(struct xdp_md *));
} jumps SEC(".maps") = { .values = { [0] = (void *)&middle, [1] = (void *)&last, [2] = (void *)&again } };

static __attribute__((noinline)) int hop(struct xdp_md *ctx, __u32 index)
{
	volatile __u64 kept[4] = {index};

	bpf_tail_call(ctx, &jumps, index);
	return kept[1];
}
static __attribute__((noinline)) int step(struct xdp_md *ctx, __u32 index)
{
	volatile __u64 kept[2] = {index};

	return hop(ctx, index) + kept[0];
}
SEC("xdp") int first(struct xdp_md *ctx)
{
	volatile __u64 kept[4] = {1};

	return step(ctx, 0) + kept[0] & 3;
}
SEC("xdp") int middle(struct xdp_md *ctx)
{
	volatile __u64 kept[8] = {1};

	return step(ctx, 1) + kept[0];
}
static __attribute__((noinline)) int deepest(__u64 *p) { return p[0] + p[3]; }
static __attribute__((noinline)) int deeper(__u64 *p) { return deepest(p) + p[1]; }
static __attribute__((noinline)) int deep(int n)
{
	__u64 kept[4] = {n, 1, n, 2};

	asm volatile("" : : "r"(&kept) : "memory");
	return deeper(kept);
}
SEC("xdp") int last(struct xdp_md *ctx)
{
	volatile __u64 kept[42] = {2};

	return deep(ctx->data_end - ctx->data) + kept[0];
}
SEC("xdp") int again(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 2);
	return XDP_PASS;
}
char _license[] SEC("license") = "GPL";
