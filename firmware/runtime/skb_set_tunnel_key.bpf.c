#include "tunnel.h"

#define KNOWN (BPF_F_TUNINFO_IPV6 | BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT | BPF_F_SEQ_NUMBER | BPF_F_NO_TUNNEL_KEY)
#define FLOW_LABEL 0xfffff

/* No port of a NIC is a tunnel: what is said here tells the program alone, with bpf_skb_get_tunnel_key(), which calls
 * the tunnel's own end the remote one. */
__no_builtin long helper_skb_set_tunnel_key(void *skb, const void *from, __u32 size, __u64 flags)
{
	struct bpf_tunnel_key key, *kept = &SKB->tunnel;
	int v6 = flags & BPF_F_TUNINFO_IPV6;

	if (flags & ~(__u64)KNOWN || !is_key_size(size))
		return -EINVAL;
	if (out_of_bounds(from, size))
		return -EFAULT;
	clear(&key, sizeof key);
	copy(&key, from, size);
	if (key.tunnel_ext || (!v6 && key.tunnel_label))
		return -EINVAL;
	kept->tunnel_id = key.tunnel_id;
	kept->tunnel_tos = key.tunnel_tos;
	kept->tunnel_ttl = key.tunnel_ttl;
	kept->tunnel_label = key.tunnel_label & FLOW_LABEL;
	for (int word = 0; word < 4; word++) {
		kept->remote_ipv6[word] = v6 || !word ? key.local_ipv6[word] : 0;
		kept->local_ipv6[word] = v6 || !word ? key.remote_ipv6[word] : 0;
	}
	SKB->tunnel_family = v6 ? AF_INET6 : AF_INET;
	SKB->tunnel_flags = TUNNEL_NOCACHE | (flags & BPF_F_NO_TUNNEL_KEY ? 0 : TUNNEL_KEY) |
			    (flags & BPF_F_ZERO_CSUM_TX ? 0 : TUNNEL_CSUM) | (flags & BPF_F_SEQ_NUMBER ? TUNNEL_SEQ : 0) |
			    (flags & BPF_F_DONT_FRAGMENT ? TUNNEL_DONT_FRAGMENT : 0);
	return 0;
}
