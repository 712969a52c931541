#include "skb.h"
#include <linux/ip.h>
#include <linux/ipv6.h>

#define ENCAP_L3 (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
#define ENCAP_L4 (BPF_F_ADJ_ROOM_ENCAP_L4_GRE | BPF_F_ADJ_ROOM_ENCAP_L4_UDP)
#define DECAP_L3 (BPF_F_ADJ_ROOM_DECAP_L3_IPV4 | BPF_F_ADJ_ROOM_DECAP_L3_IPV6)
#define ENCAP_L2 BPF_F_ADJ_ROOM_ENCAP_L2(BPF_ADJ_ROOM_ENCAP_L2_MASK)
#define GROWS (BPF_F_ADJ_ROOM_FIXED_GSO | ENCAP_L3 | ENCAP_L4 | BPF_F_ADJ_ROOM_ENCAP_L2_ETH | ENCAP_L2)
#define SHRINKS (BPF_F_ADJ_ROOM_FIXED_GSO | DECAP_L3 | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define KNOWN (GROWS | DECAP_L3 | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
#define LONGEST 0xfff

static __always_inline long shrink(__u32 offset, __u32 size, __u64 flags)
{
	if (flags & ~(__u64)SHRINKS)
		return -EINVAL;
	if (close_room(offset, size))
		return -ENOMEM;
	if (flags & BPF_F_ADJ_ROOM_DECAP_L3_IPV6)
		SKB->seen.protocol = bpf_htons(ETH_P_IPV6);
	else if (flags & BPF_F_ADJ_ROOM_DECAP_L3_IPV4)
		SKB->seen.protocol = bpf_htons(ETH_P_IP);
	return 0;
}

static __always_inline long grow(__u32 offset, __u32 size, __u64 flags)
{
	__u32 inner = flags >> BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

	if (flags & ENCAP_L3) {
		if ((flags & ENCAP_L3) == ENCAP_L3 || (flags & ENCAP_L4) == ENCAP_L4)
			return -EINVAL;
		if (flags & BPF_F_ADJ_ROOM_ENCAP_L2_ETH && inner < ETH_HLEN)
			return -EINVAL;
		if (SKB->encapsulated)
			return -EALREADY;
		if (inner > size)
			return -EINVAL;
	}
	if (open_room(offset, size))
		return -ENOMEM;
	if (flags & ENCAP_L3) {
		__u32 v6 = flags & BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;

		SKB->encapsulated = 1;
		if (flags & ENCAP_L4)
			SKB->transport_header = SKB->network_header + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
		SKB->seen.protocol = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	}
	return 0;
}

__no_builtin long helper_skb_adjust_room(void *skb, __s32 difference, __u32 mode, __u64 flags)
{
	__u32 size = difference < 0 ? -difference : difference, protocol = SKB->seen.protocol;
	__u32 offset = SKB->network_header, after = SKB->seen.len - offset, header, least;
	long error;

	if (flags & ~(__u64)KNOWN)
		return -EINVAL;
	if (size > LONGEST)
		return -EFAULT;
	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return -ENOTSUPP;
	least = header = protocol == bpf_htons(ETH_P_IP) ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	if (mode == BPF_ADJ_ROOM_NET)
		offset += header;
	else if (mode != BPF_ADJ_ROOM_MAC)
		return -ENOTSUPP;
	if (flags & DECAP_L3) {
		if (difference >= 0 || (flags & DECAP_L3) == DECAP_L3)
			return -EINVAL;
		least = flags & BPF_F_ADJ_ROOM_DECAP_L3_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	}
	if (difference < 0) {
		if (size >= after || after - size < least)
			return -ENOTSUPP;
		error = shrink(offset, size, flags);
	} else {
		error = grow(offset, size, flags);
	}
	if (!error && !(flags & BPF_F_ADJ_ROOM_NO_CSUM_RESET)) {
		SKB->ip_summed = CHECKSUM_NONE;
		SKB->csum_level = 0;
	}
	return error;
}
