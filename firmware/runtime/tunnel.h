/* What is said of a tunnel (`struct bpf_tunnel_key`). */
#pragma once
#include "skb.h"
#include <linux/if_tunnel.h>

/* Sizes that the structure has had. */
static __always_inline int is_key_size(__u32 size)
{
	return size == sizeof(struct bpf_tunnel_key) || size == __builtin_offsetof(struct bpf_tunnel_key, local_ipv6) ||
	       size == __builtin_offsetof(struct bpf_tunnel_key, tunnel_label) ||
	       size == __builtin_offsetof(struct bpf_tunnel_key, tunnel_ext) ||
	       size == __builtin_offsetof(struct bpf_tunnel_key, remote_ipv6[1]);
}
