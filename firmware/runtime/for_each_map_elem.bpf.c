/* bpf_for_each_map_elem(): bpf_for_each_array_elem(), kernel/bpf/arraymap.c. */
#include "runtime.h"
#include "layout.h"

long helper_for_each_map_elem(void *map, long (*callback)(void *map, const __u32 *key, void *value, void *context),
			      void *context, __u64 flags)
{
	const struct layout *layout = layout_of(map);
	char *value;
	__u32 index;

	if (flags || !layout || (layout->type != BPF_MAP_TYPE_ARRAY && layout->type != BPF_MAP_TYPE_PERCPU_ARRAY))
		return -EINVAL;
	value = (char *)(long)layout->values + (__u64)layout->cpu_stride * bpf_get_smp_processor_id();
	for (index = 0; index < layout->entries; index++, value += layout->stride)
		if (callback(map, &index, value, context))
			return index + 1;
	return index;
}
