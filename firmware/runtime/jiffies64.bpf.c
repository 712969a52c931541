/* bpf_jiffies64(): ticks of the NIC's clock. */
#include "runtime.h"

__u64 helper_jiffies64(void)
{
	return bpf_ktime_get_ns() / (1000000000 / JIFFIES_PER_SECOND);
}
