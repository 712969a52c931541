#include "skb.h"

__no_builtin long helper_skb_set_tstamp(void *skb, __u64 tstamp, __u32 type)
{
	__u32 protocol = SKB->seen.protocol;

	if (protocol != bpf_htons(ETH_P_IP) && protocol != bpf_htons(ETH_P_IPV6))
		return -EOPNOTSUPP;
	if (type > BPF_SKB_CLOCK_TAI || (type != BPF_SKB_CLOCK_REALTIME && !tstamp))
		return -EINVAL;
	SKB->seen.tstamp = tstamp;
	SKB->seen.tstamp_type = type;
	return 0;
}
