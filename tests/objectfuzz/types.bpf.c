/* SPDX-License-Identifier: BSD-2-Clause
 *
 * All kinds of types and of CO-RE relocations, for what reads them: an original of which damaged objects are made.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

struct undefined;
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct xdp_md___fuzzed { __u32 data_end, data, gone; };
struct iphdr___fuzzed { __u8 ihl : 4, version : 4; __be32 saddr; };
struct inner { float small; double large; const char *restrict volatile text; };
struct outer {
	struct outer *next;
	union { struct inner list[3]; __u8 bytes[16]; };
	int (*function)(struct undefined *argument, ...);
	int low : 3, high : 7;
	enum xdp_action action;
	int tail[];
};
#pragma clang attribute pop
enum wide { NARROW = -1, WIDE = 0x123456789abcLL };
typedef __attribute__((btf_type_tag("user"))) int *tagged;

struct value {
	enum wide wide;
	struct { __be32 address; __u8 mac[6]; };
	_Bool flag;
	char name[8];
	__u32 bits : 5;
	tagged pointer;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct { __u16 port; __u16 vlan; });
	__type(value, struct value);
} values SEC(".maps");
struct inner noted __attribute__((btf_decl_tag("noted")));

SEC("xdp") int program(struct xdp_md___fuzzed *ctx)
{
	struct iphdr___fuzzed *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct outer *outer = (void *)(long)ctx->data;
	unsigned long result = noted.text != 0;

	if ((void *)(long)ctx->data + 256 > (void *)(long)ctx->data_end)
		return XDP_DROP;
	if (bpf_core_field_exists(ctx->gone))
		result += ctx->gone;
	result += BPF_CORE_READ_BITFIELD(ip, version) + ip->saddr;
	if (bpf_core_type_exists(struct outer) && bpf_core_type_matches(struct inner))
		result += outer->list[1].text != 0 ? outer->tail[2] : BPF_CORE_READ_BITFIELD(outer, high);
	result += bpf_core_field_size(outer->bytes) + bpf_core_type_size(struct ethhdr);
	result += bpf_core_type_id_local(struct outer) + bpf_core_type_id_kernel(struct iphdr);
	result += bpf_core_enum_value(enum xdp_action, XDP_TX) + bpf_core_enum_value_exists(enum wide, WIDE);
	return result ? XDP_PASS : XDP_TX;
}

char _license[] SEC("license") = "GPL";
