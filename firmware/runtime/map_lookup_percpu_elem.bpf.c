/* bpf_map_lookup_percpu_elem(): kernel/bpf/arraymap.c, kernel/bpf/hashtab.c. */
#include "runtime.h"
#include "layout.h"

void *helper_map_lookup_percpu_elem(void *map, const void *key, __u32 cpu)
{
	const struct layout *layout = layout_of(map);
	char *own;

	if (!layout || !layout->cpu_stride || cpu >= layout->cpus)
		return 0;
	own = bpf_map_lookup_elem(map, key);
	return own ? own + (__s64)layout->cpu_stride * ((__s64)cpu - bpf_get_smp_processor_id()) : 0;
}
