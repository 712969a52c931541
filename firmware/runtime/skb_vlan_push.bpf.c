#include "skb.h"

/* A tag that is there goes into the packet's bytes. */
__no_builtin long helper_skb_vlan_push(void *skb, __u16 protocol, __u16 tci)
{
	if (!is_vlan(protocol))
		protocol = bpf_htons(ETH_P_8021Q);
	if (SKB->seen.vlan_present) {
		if (insert_tag(SKB->seen.vlan_proto, SKB->seen.vlan_tci))
			return -ENOMEM;
		SKB->seen.protocol = SKB->seen.vlan_proto;
	}
	put_tag(protocol, tci);
	return 0;
}
