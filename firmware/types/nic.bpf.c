/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The types that a NIC has, in BTF: what programs that are compiled once for any kernel (CO-RE) are fitted to. Contexts,
 * arguments of helpers, headers of packets, and the enumerations of linux/bpf.h. A card has no other structures of a
 * kernel: their fields do not exist here.
 */
#include <linux/bpf.h>
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_vlan.h>
#include <linux/igmp.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/mpls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

/* Headers that Linux keeps to itself, by their names there. */
struct vlan_hdr {
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};

struct vlan_ethhdr {
	union {
		struct {
			unsigned char h_dest[ETH_ALEN];
			unsigned char h_source[ETH_ALEN];
		};
		struct {
			unsigned char h_dest[ETH_ALEN];
			unsigned char h_source[ETH_ALEN];
		} addrs;
	};
	__be16 h_vlan_proto;
	__be16 h_vlan_TCI;
	__be16 h_vlan_encapsulated_proto;
};

struct sctphdr {
	__be16 source;
	__be16 dest;
	__be32 vtag;
	__le32 checksum;
};

struct frag_hdr {
	__u8 nexthdr;
	__u8 reserved;
	__be16 frag_off;
	__be32 identification;
};

struct vxlanhdr {
	__be32 vx_flags;
	__be32 vx_vni;
};

struct gre_base_hdr {
	__be16 flags;
	__be16 protocol;
};

/* A variable of each: compilers describe what is used. */
#define HAS(kind, name) kind name has_##name

HAS(struct, xdp_md);
HAS(struct, __sk_buff);
HAS(struct, bpf_fib_lookup);
HAS(struct, bpf_redir_neigh);
HAS(struct, bpf_tunnel_key);
HAS(struct, bpf_devmap_val);
HAS(struct, bpf_cpumap_val);
HAS(struct, bpf_spin_lock);
HAS(struct, bpf_lpm_trie_key);
HAS(struct, bpf_flow_keys);
HAS(struct, bpf_sock_tuple);
HAS(struct, ethhdr);
HAS(struct, vlan_hdr);
HAS(struct, vlan_ethhdr);
HAS(struct, arphdr);
HAS(struct, iphdr);
HAS(struct, ip_auth_hdr);
HAS(struct, ip_esp_hdr);
HAS(struct, ipv6hdr);
HAS(struct, ipv6_opt_hdr);
HAS(struct, ipv6_rt_hdr);
HAS(struct, frag_hdr);
HAS(struct, in_addr);
HAS(struct, in6_addr);
HAS(struct, icmphdr);
HAS(struct, icmp6hdr);
HAS(struct, igmphdr);
HAS(struct, tcphdr);
HAS(struct, udphdr);
HAS(struct, sctphdr);
HAS(struct, mpls_label);
HAS(struct, vxlanhdr);
HAS(struct, gre_base_hdr);
HAS(enum, xdp_action);
HAS(enum, bpf_func_id);
HAS(enum, bpf_map_type);
HAS(enum, bpf_prog_type);
