/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BPFNIC_NET_ETHERNET_H
#define BPFNIC_NET_ETHERNET_H

#include <linux/if_ether.h>
#include <sys/types.h>

struct ether_header {
	uint8_t ether_dhost[ETH_ALEN];
	uint8_t ether_shost[ETH_ALEN];
	uint16_t ether_type;
} __attribute__((packed));

#define ETHERTYPE_IP ETH_P_IP
#define ETHERTYPE_ARP ETH_P_ARP
#define ETHERTYPE_VLAN ETH_P_8021Q
#define ETHERTYPE_IPV6 ETH_P_IPV6

#endif
