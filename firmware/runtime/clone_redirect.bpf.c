/* bpf_clone_redirect(): a copy of the packet as it is now, its tag in front again, leaves by a port or comes in there
 * (net/core/filter.c). */
#include "skb.h"

__no_builtin long helper_clone_redirect(struct __sk_buff *skb, __u32 ifindex, __u64 flags)
{
	__u32 tagged = SKB->seen.vlan_present;
	long result;

	if (flags & ~(__u64)BPF_F_INGRESS)
		return -EINVAL;
	if (tagged && insert_tag(SKB->seen.vlan_proto, SKB->seen.vlan_tci))
		return -ENOMEM;
	result = bpf_clone_redirect(skb, ifindex, flags);
	if (tagged)
		remove_tag();
	return result;
}
