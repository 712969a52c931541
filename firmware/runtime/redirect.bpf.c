/* bpf_redirect() of tc programs. With BPF_F_INGRESS the packet comes in by that port, at its tcx/ingress. */
#include "skb.h"
#include <linux/pkt_cls.h>

__no_builtin long helper_redirect(__u32 ifindex, __u64 flags)
{
	if (flags & ~(__u64)BPF_F_INGRESS)
		return TC_ACT_SHOT;
	SKB->seen.family = 0; /* bpf_redirect_neigh() before it counts no more */
	bpf_redirect(ifindex, flags);
	return TC_ACT_REDIRECT;
}
