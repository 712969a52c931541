/* bpf_for_each_map_elem(): bpf_for_each_array_elem(), kernel/bpf/arraymap.c, bpf_for_each_hash_elem(),
 * kernel/bpf/hashtab.c. */
#include "runtime.h"
#include "layout.h"

typedef long visit(void *map, const void *key, void *value, void *context);

/* The next step of a walk (spec.helpers.MAP_WALK). */
static __u64 (*const map_walk)(void *map, __u64 where) = (void *)MAP_WALK;

/* Where a walk leaves each key. It is copied from there, for the callback may walk too. */
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32);
	 __uint(value_size, MAX_KEY_BYTES); } walk_keys SEC(".maps");

static __always_inline long each_of_array(void *map, const struct layout *layout, visit *callback, void *context)
{
	char *value = (char *)(long)layout->values + (__u64)layout->cpu_stride * bpf_get_smp_processor_id();
	__u32 index;

	for (index = 0; index < layout->entries; index++, value += layout->stride)
		if (callback(map, &index, value, context))
			return index + 1;
	return index;
}

static __always_inline long each_of_hash(void *map, visit *callback, void *context)
{
	__u64 key[MAX_KEY_BYTES / 8], where = 0, *left, words = ((__u64)map >> HANDLE_KEY_BIT) % MAX_KEY_BYTES / 8 + 1;
	long visited = 0;
	__u32 zero = 0;

	left = bpf_map_lookup_elem(&walk_keys, &zero);
	if (!left)
		return 0;
	while ((where = map_walk(map, where >> 32 << 32 | (__u64)left))) {
		if (!(__u32)where) /* others wanted the map */
			continue;
		for (__u64 i = 0; i < words; i++)
			key[i] = left[i];
		visited++;
		if (callback(map, key, (void *)(__u64)(__u32)where, context))
			break;
		for (__u64 i = 0; i < words; i++)
			left[i] = key[i];
	}
	return visited;
}

long helper_for_each_map_elem(void *map, visit *callback, void *context, __u64 flags)
{
	const struct layout *layout = layout_of(map);

	if (flags || !layout)
		return -EINVAL;
	switch (layout->type) {
	case BPF_MAP_TYPE_ARRAY:
	case BPF_MAP_TYPE_PERCPU_ARRAY:
		return each_of_array(map, layout, callback, context);
	case BPF_MAP_TYPE_HASH:
	case BPF_MAP_TYPE_PERCPU_HASH:
	case BPF_MAP_TYPE_LRU_HASH:
	case BPF_MAP_TYPE_LRU_PERCPU_HASH:
		return each_of_hash(map, callback, context);
	}
	return -EINVAL;
}
