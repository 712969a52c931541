// What runs against the host in tests/soak: every packet asks for a look-up or an update of a full table.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MULTIPLIER 0x9e3779b97f4a7c15ull

struct value {
	__u64 number, twin; // twin is number ^ key * MULTIPLIER
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ENTRIES);
	__type(key, __u32);
	__type(value, struct value);
} table SEC(".maps");

// What must not be: a key that nobody deletes is missing, a value is another key's or half of one, an operation fails.
__u64 lost, torn, failed;
// What happened.
__u64 found, missing, updated, full, taken;

struct request {
	unsigned char ethernet[16];
	__u32 key, operation;
	__u64 number;
};
enum { LOOKUP_KEPT, LOOKUP, UPDATE_KEPT, UPDATE, INTRUDE };

static __always_inline void look(__u32 key, int kept)
{
	struct value *value = bpf_map_lookup_elem(&table, &key);

	if (!value) {
		__sync_fetch_and_add(kept ? &lost : &missing, 1);
		return;
	}
	__u64 number = value->number;
	__sync_fetch_and_add((number ^ value->twin) == key * MULTIPLIER ? &found : &torn, 1);
}

SEC("xdp") int soak(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct value value;
	long result;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__u32 key = request->key;

	value.number = request->number;
	value.twin = request->number ^ key * MULTIPLIER;
	switch (request->operation) {
	case LOOKUP_KEPT:
		look(key, 1);
		break;
	case LOOKUP:
		look(key, 0);
		break;
	case UPDATE_KEPT:
		result = bpf_map_update_elem(&table, &key, &value, BPF_ANY);
		__sync_fetch_and_add(result ? &lost : &updated, 1);
		break;
	case UPDATE: // it changes nothing in which keys are there
		result = bpf_map_update_elem(&table, &key, &value, BPF_EXIST);
		__sync_fetch_and_add(result == -2 ? &missing : result ? &failed : &updated, 1);
		break;
	case INTRUDE: // a key of its own in whatever room there is, and out again
		result = bpf_map_update_elem(&table, &key, &value, BPF_NOEXIST);
		if (result) {
			__sync_fetch_and_add(result == -7 ? &full : &failed, 1);
			break;
		}
		look(key, 1);
		__sync_fetch_and_add(bpf_map_delete_elem(&table, &key) ? &lost : &taken, 1);
		break;
	}
	return XDP_DROP;
}

char _license[] SEC("license") = "GPL";
