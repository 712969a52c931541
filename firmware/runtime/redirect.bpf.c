/* bpf_redirect() of tc programs. BPF_F_INGRESS is unknown: a NIC has no second way in. */
#include "skb.h"
#include <linux/pkt_cls.h>

__no_builtin long helper_redirect(__u32 ifindex, __u64 flags)
{
	if (flags)
		return TC_ACT_SHOT;
	SKB->seen.family = 0; /* bpf_redirect_neigh() before it counts no more */
	bpf_redirect(ifindex, 0);
	return TC_ACT_REDIRECT;
}
