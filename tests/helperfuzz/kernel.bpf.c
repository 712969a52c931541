// SPDX-License-Identifier: BSD-2-Clause
//
// Makes the call CALL, in C, which a verifier accepts, with what struct call in the packet says, and notes in `results`
// what came of it. kernel.py makes the packets. TC: a tc program, for which the packet has
// headers in front; it may do something else to the packet before.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#ifdef TC
#define SECTION "tc"
#define PASSES TC_ACT_OK
#define LOAD_BYTES bpf_skb_load_bytes
#define CALL_AT 64
#include "prepare.h"
typedef struct __sk_buff context;
#else
#define SECTION "xdp"
#define PASSES XDP_PASS
#define LOAD_BYTES bpf_xdp_load_bytes
#define CALL_AT 0
typedef struct xdp_md context;
#endif

#include "maps.h"

#define CALLS 256

struct call {
	__u64 words[5], room[8], more[8], prepared, amount;
	__u32 number, is_verdict;
};

struct result {
	__s64 returned;
	__u64 room[8], more[8];
	__u32 fields[5];
};

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, CALLS); __type(key, __u32); __type(value, struct result); }
	results SEC(".maps");

static const char word[] = "12 words";

/* From word N: a number below 64, or one from 1 to 64. */
#define SIZE_OR_ZERO(N) ({ __u64 size = words[N]; asm volatile("%0 &= 63" : "+r"(size)); size; })
#define SIZE(N) (SIZE_OR_ZERO(N) + 1)

/* What a look-up found. */
static __always_inline __s64 first_of(__u64 *value)
{
	return value ? (__s64)*value : -ENOENT;
}

/* A record of its own size, which a verifier has to know. */
static __always_inline __s64 reserve_and(void (*let_go)(void *, __u64), __u64 flags, __u64 its_flags, __u64 *room)
{
	__u64 *record = bpf_ringbuf_reserve(&ring, 24, flags);

	if (!record)
		return -ENOENT;
	record[0] = room[0];
	record[1] = record[2] = room[1];
	let_go(record, its_flags);
	return 0;
}

struct sum {
	__u64 visits, values, stop;
};

static long add(void *map, const void *key, __u64 *value, struct sum *sum)
{
	sum->visits++;
	sum->values += *value + *(__u32 *)key;
	return sum->visits == sum->stop;
}

static long count(__u32 index, struct sum *sum)
{
	sum->visits++;
	sum->values += index;
	return sum->visits == sum->stop;
}

SEC(SECTION) int helper(context *ctx)
{
	struct call call;
	struct result *result;
	__u64 *words = call.words, *room = call.room, *more = call.more;
	struct sum *sum = (void *)more;
	__s64 returned;

	if (LOAD_BYTES(ctx, CALL_AT, &call, sizeof call))
		return PASSES;
#ifdef TC
	prepare(ctx, call.prepared, call.amount);
#endif
	returned = CALL;
	result = bpf_map_lookup_elem(&results, &call.number);
	if (!result)
		return PASSES;
	result->returned = returned;
	__builtin_memcpy(result->room, room, sizeof call.room);
	__builtin_memcpy(result->more, more, sizeof call.more);
#ifdef TC
	result->fields[0] = ctx->len;
	result->fields[1] = ctx->protocol;
	result->fields[2] = ctx->vlan_present ? ctx->vlan_tci | ctx->vlan_proto << 16 : 0;
	result->fields[3] = ctx->pkt_type;
	result->fields[4] = ctx->tstamp_type;
#else
	result->fields[0] = ctx->data_end - ctx->data;
	result->fields[1] = ctx->data - ctx->data_meta;
#endif
	return call.is_verdict ? returned : PASSES;
}

char _license[] SEC("license") = "GPL";
