// SPDX-License-Identifier: BSD-2-Clause
//
// Filters DNS queries (UDP, port 53) by the name that they ask for: of the domains in a table the longest that the
// name is or lies in says what becomes of the query, and counts it. Shows a name of unknown length walked in bounded
// loops, and longest match over text: with its letters reversed a domain is a prefix of all names in it
// ("tset.elpmaxe.", which is example.test, of "tset.elpmaxe.www." and not of "tset.elpmaxeretnuoc."). Upper and lower
// case are alike. What is no query, has no whole name in it, or lies in no domain of the table passes.

#include "parsing.h"

#define DOMAINS 256
#define DOMAIN_BYTES 60 // of a name those nearest the root
#define END_OF_LABEL '.'
#define DNS_PORT 53
#define LABELS 127 // of a name
#define LABEL_BYTES 63
#define NAME_BYTES 254 // of its labels with their lengths; the root's makes it 255

struct dns_header {
	__be16 id;
	__be16 flags;
	__be16 questions;
	__be16 answers;
	__be16 authorities;
	__be16 additional;
};

#define DNS_RESPONSE 0x8000
#define DNS_OPCODE 0x7800 // 0 for a query

struct domain {
	__u32 length; // in bits
	char reversed[DOMAIN_BYTES]; // each label, that of the root's domain first, from its end, and END_OF_LABEL
};

struct policy {
	enum xdp_action action;
	__u32 queries; // that it was for
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, DOMAINS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct domain);
	__type(value, struct policy);
} domains SEC(".maps");

// Bytes between two places of a frame. To the verifier that is any number, so that it walks what follows once, by
// whatever way it came here; the compiler may not know better, nor take the difference apart.
static __always_inline __u64 distance(void *to, void *from)
{
	__u64 bytes;

	barrier_var(to);
	bytes = to - from;
	barrier_var(bytes);
	return bytes;
}

// The DNS header of a query, or NULL.
static __always_inline struct dns_header *find_query(void *data, void *data_end)
{
	struct dns_header *dns;
	struct ports *ports;
	__be16 ethertype;
	__u8 protocol;
	void *at;

	at = behind_ethernet(data, data_end, &ethertype);
	if (!at)
		return NULL;
	at = behind_network(at, data_end, ethertype, &protocol);
	if (!at || protocol != IPPROTO_UDP)
		return NULL;
	ports = find_ports(at, data_end, protocol);
	if (!ports || ports->destination != bpf_htons(DNS_PORT))
		return NULL;
	dns = at + 8;
	if ((void *)(dns + 1) > data_end || dns->flags & bpf_htons(DNS_RESPONSE | DNS_OPCODE) || !dns->questions)
		return NULL;
	return dns;
}

// Bytes of a name's labels, with a bit in `starts` for each that is a label's length; below 0 if the name isn't whole.
// It can't be compressed, for there is none before it.
static __always_inline int walk(__u8 *name, void *data_end, __u64 starts[NAME_BYTES / 64 + 1])
{
	__u32 length = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i <= LABELS; i++) {
		__u8 *label = name + length;

		if ((void *)(label + 1) > data_end || *label > LABEL_BYTES)
			return -1;
		if (!*label)
			return distance(label, name);
		starts[length / 64] |= 1ULL << length % 64;
		length += 1 + *label;
		if (length > NAME_BYTES)
			return -1;
	}
	return -1;
}

// A letter of a label as domains have it: in lower case, and none that looks like the end of a label.
static __always_inline __u8 letter_of(__u8 letter)
{
	if (letter >= 'A' && letter <= 'Z')
		return letter + ('a' - 'A');
	return letter == END_OF_LABEL ? 0 : letter;
}

// The end of a name, reversed; 0 if the frame has no whole name there.
static __always_inline int domain_of(__u8 *name, void *data_end, struct domain *domain)
{
	__u64 starts[NAME_BYTES / 64 + 1] = {};
	int length = walk(name, data_end, starts);

	if (length < 0)
		return 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < DOMAIN_BYTES && i < length; i++) {
		__u32 place = length - 1 - i;

		barrier_var(place);
		// Neither is, which the verifier can't know.
		if (place >= NAME_BYTES || (void *)(name + place + 1) > data_end)
			return 0;
		domain->reversed[i] = starts[place / 64] >> place % 64 & 1 ? END_OF_LABEL : letter_of(name[place]);
		domain->length += 8;
	}
	return 1;
}

SEC("xdp")
int dnsfilter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct dns_header *dns = find_query(data, data_end);
	struct domain domain = {};
	struct policy *policy;
	__u64 offset;

	if (!dns)
		return XDP_PASS;
	offset = distance(dns + 1, data);
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (!domain_of(data + (offset & 0x7ff), data_end, &domain))
		return XDP_PASS;
	policy = bpf_map_lookup_elem(&domains, &domain);
	if (!policy)
		return XDP_PASS;
	__sync_fetch_and_add(&policy->queries, 1);
	return policy->action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
