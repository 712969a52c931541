#include "tunnel.h"

/* No packet comes to a NIC through a tunnel of its: there is a key if the program has set one. */
__no_builtin long helper_skb_get_tunnel_key(void *skb, void *to, __u32 size, __u64 flags)
{
	struct bpf_tunnel_key key;
	long error = 0;

	if (out_of_bounds(to, size))
		return -EFAULT;
	if (!SKB->tunnel_family || flags & ~(__u64)(BPF_F_TUNINFO_IPV6 | BPF_F_TUNINFO_FLAGS))
		error = -EINVAL;
	else if (SKB->tunnel_family != (flags & BPF_F_TUNINFO_IPV6 ? AF_INET6 : AF_INET))
		error = -EPROTO;
	else if (!is_key_size(size))
		error = -EINVAL;
	else if (size == __builtin_offsetof(struct bpf_tunnel_key, remote_ipv6[1]) && SKB->tunnel_family != AF_INET)
		error = -EINVAL;
	if (error) {
		clear(to, size);
		return error;
	}
	copy(&key, &SKB->tunnel, sizeof key);
	key.tunnel_ext = flags & BPF_F_TUNINFO_FLAGS ? SKB->tunnel_flags : 0;
	copy(to, &key, size);
	return 0;
}
