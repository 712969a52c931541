// SPDX-License-Identifier: BSD-2-Clause
//
// Drops every packet. Shows the smallest program there is: two instructions, no packet access, no map. What it costs a
// packet is what the NIC itself costs.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
