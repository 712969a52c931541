/* Does up to STEPS things to its packet, as the map `steps` says, and notes in `results` what each came to. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#define STEPS 4
#define BYTES 64

enum operation {
	NOTHING, LOAD, LOAD_RELATIVE, STORE, L3, L4, PULL, TAIL, HEAD, PROTO, TYPE, ROOM, PUSH, POP, HASH_INVALID, SET_HASH,
	CSUM_UPDATE, CSUM_LEVEL, ECN, WRITE, TOUCH, GET_TUNNEL, SET_TUNNEL, SET_TSTAMP, GET_HASH,
};

struct step {
	__u32 operation, a, b, c;
	__u64 d;
};

struct result {
	__s64 value;
	__u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority, tc_index, cb[5], hash,
		tc_classid, wire_len, tstamp_type;
	__u64 tstamp;
	__u8 bytes[BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, struct step);
} steps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEPS);
	__type(key, __u32);
	__type(value, struct result);
} results SEC(".maps");

__u32 verdict;

static __noinline __s64 act(struct __sk_buff *skb, struct step *step, __u8 *bytes)
{
	__u32 a = step->a, b = step->b, c = step->c, size = (b & (BYTES - 1)) + 1;
	__u64 d = step->d;

	switch (step->operation) {
	case LOAD:
		return bpf_skb_load_bytes(skb, a, bytes, size);
	case LOAD_RELATIVE:
		return bpf_skb_load_bytes_relative(skb, a, bytes, size, c);
	case STORE:
		return bpf_skb_store_bytes(skb, a, bytes, size, d);
	case L3:
		return bpf_l3_csum_replace(skb, a, b, c, d);
	case L4:
		return bpf_l4_csum_replace(skb, a, b, c, d);
	case PULL:
		return bpf_skb_pull_data(skb, a);
	case TAIL:
		return bpf_skb_change_tail(skb, a, d);
	case HEAD:
		return bpf_skb_change_head(skb, a, d);
	case PROTO:
		return bpf_skb_change_proto(skb, a, d);
	case TYPE:
		return bpf_skb_change_type(skb, a);
	case ROOM:
		return bpf_skb_adjust_room(skb, a, b, d);
	case PUSH:
		return bpf_skb_vlan_push(skb, a, b);
	case POP:
		return bpf_skb_vlan_pop(skb);
	case HASH_INVALID:
		bpf_set_hash_invalid(skb);
		return 0;
	case SET_HASH:
		return bpf_set_hash(skb, a);
	case CSUM_UPDATE:
		return bpf_csum_update(skb, a);
	case CSUM_LEVEL:
		return bpf_csum_level(skb, d);
	case ECN:
		return bpf_skb_ecn_set_ce(skb);
	case GET_TUNNEL:
		return bpf_skb_get_tunnel_key(skb, (void *)bytes, size, d);
	case SET_TUNNEL:
		return bpf_skb_set_tunnel_key(skb, (void *)bytes, size, d);
	case SET_TSTAMP:
		return bpf_skb_set_tstamp(skb, d, a);
	case GET_HASH: /* which one is up to whoever makes it */
		return bpf_get_hash_recalc(skb) == skb->hash && skb->hash;
	case WRITE:
		skb->mark = a;
		skb->priority = b;
		skb->queue_mapping = c & 0xfff;
		skb->tc_index = a;
		skb->tc_classid = b;
		skb->tstamp = d;
		skb->cb[0] = a;
		skb->cb[1] = b;
		skb->cb[4] = c;
		return 0;
	case TOUCH: {
		__u8 *data = (void *)(long)skb->data;

		if (data + 64 > (__u8 *)(long)skb->data_end)
			return -1;
		data[30] = b;
		return data[31];
	}
	}
	return 0;
}

static __noinline int one(struct __sk_buff *skb, __u32 number)
{
	struct step *step = bpf_map_lookup_elem(&steps, &number);
	struct result *to = bpf_map_lookup_elem(&results, &number);

	if (!step || !to)
		return 1;
	to->value = act(skb, step, to->bytes);
	to->len = skb->len;
	to->pkt_type = skb->pkt_type;
	to->mark = skb->mark;
	to->queue_mapping = skb->queue_mapping;
	to->protocol = skb->protocol;
	to->vlan_present = skb->vlan_present;
	to->vlan_tci = skb->vlan_tci;
	to->vlan_proto = skb->vlan_proto;
	to->priority = skb->priority;
	to->tc_index = skb->tc_index;
	for (int i = 0; i < 5; i++)
		to->cb[i] = skb->cb[i];
	to->hash = step->operation == GET_HASH ? 0 : skb->hash;
	to->tc_classid = skb->tc_classid;
	to->wire_len = skb->wire_len;
	to->tstamp = skb->tstamp;
	to->tstamp_type = skb->tstamp_type;
	return 0;
}

SEC("tc") int program(struct __sk_buff *skb)
{
	if (one(skb, 0) || one(skb, 1) || one(skb, 2) || one(skb, 3))
		return TC_ACT_SHOT;
	return verdict;
}

char _license[] SEC("license") = "GPL";
