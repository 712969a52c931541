/* What the NIC says of a packet as it came in (spec/metadata.py): helpers of its own, of no argument. */
#pragma once
#include "runtime.h"

static __u64 (*const rx_timestamp)(void) = (void *)RX_TIMESTAMP;
static __u64 (*const rx_hash)(void) = (void *)RX_HASH;
static __u64 (*const rx_vlan_tag)(void) = (void *)RX_VLAN_TAG;
