/* bpf_get_numa_node_id(): the NIC's memory is one node. */
#include "runtime.h"

long helper_get_numa_node_id(void)
{
	return 0;
}
