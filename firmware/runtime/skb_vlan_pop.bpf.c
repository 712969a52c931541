#include "skb.h"

/* The next tag, which is in the packet's bytes, takes the place of the one that goes. */
__no_builtin long helper_skb_vlan_pop(void *skb)
{
	__u32 protocol;
	__u16 tci;

	if (SKB->seen.vlan_present) {
		SKB->seen.vlan_present = SKB->seen.vlan_proto = SKB->seen.vlan_tci = 0;
	} else {
		if (!is_vlan(SKB->seen.protocol))
			return 0;
		if (take_tag(&tci))
			return -ENOMEM;
	}
	protocol = SKB->seen.protocol;
	if (!is_vlan(protocol))
		return 0;
	if (take_tag(&tci))
		return -ENOMEM;
	put_tag(protocol, tci);
	return 0;
}
