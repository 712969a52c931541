// SPDX-License-Identifier: BSD-2-Clause
//
// Swaps the MAC addresses and sends the packet back out of the port that it came in by. Shows packet writes and
// transmission, and that unaligned access is free on the NIC: the 12 bytes move in six instructions, where moving them
// one by one would take 24.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int l2swap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;

	if (data + sizeof(struct ethhdr) > data_end)
		return XDP_ABORTED;

	// Each word has a 6-byte address below and two bytes of what follows it above.
	__u64 destination = *(__u64 *)data;
	__u64 source = *(__u64 *)(data + ETH_ALEN);

	*(__u64 *)data = source; // its two upper bytes are overwritten next
	*(__u32 *)(data + ETH_ALEN) = destination;
	*(__u16 *)(data + ETH_ALEN + 4) = destination >> 32;
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
