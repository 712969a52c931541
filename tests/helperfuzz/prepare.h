/* What is done to a tc packet before the call. */
#pragma once

static __noinline void set_key(struct __sk_buff *ctx, __u64 flags)
{
	struct bpf_tunnel_key key = { .tunnel_id = 7, .tunnel_ttl = 64 };

	bpf_skb_set_tunnel_key(ctx, &key, sizeof(key), flags);
}

static __noinline void prepare(struct __sk_buff *ctx, __u64 what, __u64 amount)
{
	switch (what) {
	case 1:
		bpf_skb_change_head(ctx, amount, 0);
		break;
	case 2:
		bpf_skb_change_tail(ctx, amount, 0);
		break;
	case 3:
		bpf_skb_vlan_push(ctx, __builtin_bswap16(0x8100), amount);
		break;
	case 4:
		bpf_skb_adjust_room(ctx, 20, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
		break;
	case 5:
		set_key(ctx, 0);
		break;
	case 6:
		set_key(ctx, BPF_F_TUNINFO_IPV6);
		break;
	}
}
