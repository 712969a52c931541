// SPDX-License-Identifier: BSD-2-Clause
//
// A switch for VLANs: each has a table of its own, from MAC addresses to the interface behind which a station is.
// Shows maps in a map: the host makes, fills and replaces the table of a VLAN while packets run
// (nic.maps["vlans"][7] = table), and a packet sees the one or the other. A frame without a tag, or of a VLAN that has no
// table, goes by that of VLAN 0. Of several tags the outermost counts. A frame for a station that isn't known passes to
// the host; one for a station behind the interface that it came by is dropped.

#include "parsing.h"

#define VLANS 64
#define STATIONS 64
#define UNTAGGED 0

struct station {
	__u32 ifindex;
	__u32 packets; // sent to it
};

struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, STATIONS);
	__type(key, __u8[ETH_ALEN]);
	__type(value, struct station);
} untagged SEC(".maps"), vlan42 SEC(".maps"), vlan100 SEC(".maps");

// What it holds at first suits the sample capture.
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, VLANS);
	__type(key, __u32); // a VLAN
	__array(values, struct table);
} vlans SEC(".maps") = {
	.values = {
		[UNTAGGED] = &untagged,
		[42] = &vlan42,
		[100] = &vlan100,
	},
};

static __always_inline __u32 vlan_of(void *data, void *data_end)
{
	__be16 *ethertype = data + offsetof(struct ethhdr, h_proto), *tag = ethertype + 1;

	if ((void *)(tag + 1) > data_end || !is_vlan(*ethertype))
		return UNTAGGED;
	return bpf_ntohs(*tag) & VLAN_ID;
}

SEC("xdp")
int vlanmap(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__u32 vlan = vlan_of(data, data_end);
	struct station *station;
	void *table;

	if (data + ETH_ALEN > data_end)
		return XDP_ABORTED;

	table = bpf_map_lookup_elem(&vlans, &vlan);
	if (!table) {
		vlan = UNTAGGED;
		table = bpf_map_lookup_elem(&vlans, &vlan);
	}
	if (!table)
		return XDP_PASS;

	station = bpf_map_lookup_elem(table, data); // a frame begins with its destination
	if (!station)
		return XDP_PASS;
	if (station->ifindex == ctx->ingress_ifindex)
		return XDP_DROP;
	__atomic_fetch_add(&station->packets, 1, __ATOMIC_RELAXED);
	return bpf_redirect(station->ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
