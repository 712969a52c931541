"""Functions that are neither of the program nor helpers: the iterator of numbers, memcpy and its kin. What of them is
accepted and refused; tests/host/test_ksyms.py and tests/host/test_runtime.py run them."""

import re

import pytest

from bpfnic.host.verifier.verdict import Subject, verify

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern void *memcpy(void *to, const void *from, unsigned long size);
extern void *memset(void *to, int byte, unsigned long size);
extern int memcmp(const void *left, const void *right, unsigned long size);
char _license[] SEC("license") = "GPL";
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, char[16]); }
	bytes SEC(".maps");
SEC("xdp") __attribute__((no_builtin)) int program(struct xdp_md *ctx)
{
	struct bpf_iter_num it;
	char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 key = 0;
	char *value = bpf_map_lookup_elem(&bytes, &key);
	int *number, sum = 0;
	if (!value)
		return 1;
	BODY
	return sum;
}
"""
NEW, DESTROY = "bpf_iter_num_new(&it, 0, ctx->rx_queue_index);", "bpf_iter_num_destroy(&it);"
LOOP = "while ((number = bpf_iter_num_next(&it))) sum += *number;"
ACCEPTED = [
    f"{NEW} {LOOP} {DESTROY}",
    f"{NEW} while ((number = bpf_iter_num_next(&it))) {{ if (*number == 3) break; value[*number & 15] = 1; }}{DESTROY}",
    f"{NEW} {DESTROY} {NEW} {LOOP} {DESTROY}",
    "memcpy(value, &key, 4); sum = memcmp(value, &key, 4);",
    "memset(value, ctx->rx_queue_index, 16);",
    "if (data + 20 <= end) memcpy(data + 4, value, 16);",
    "unsigned long size = ctx->rx_queue_index; if (size <= 16) memset(value, 0, size);",
    "memset(value + 16, 0, ctx->rx_queue_index & 0);",
]
REFUSED = [
    (LOOP, "expected an initialized iter_num as arg #0"),
    (f"{NEW} {LOOP}", "BPF_EXIT instruction in main prog would lead to reference leak"),
    (f"{NEW} {NEW} {LOOP} {DESTROY}", "expected uninitialized iter_num as arg #0"),
    (f"{NEW} {DESTROY} {DESTROY}", "expected an initialized iter_num as arg #0"),
    (f"{NEW} sum = *(volatile int *)&it; {DESTROY}", "invalid read from stack"),
    (f"{NEW} *(volatile int *)&it = 1; {DESTROY}", "expected an initialized iter_num as arg #0"),
    (f"{NEW} memcpy(value, &it, 8); {DESTROY}", "invalid read from stack"),
    (f"{NEW} number = bpf_iter_num_next(&it); sum = *number; {DESTROY}", "R. invalid mem access 'scalar'"),
    (f"{NEW} while ((number = bpf_iter_num_next(&it))) *number = 1; {DESTROY}", "cannot write into rdonly_mem"),
    (f"{NEW} while ((number = bpf_iter_num_next(&it))) value[*number] = 1; {DESTROY}",
     "makes map_value pointer be out of bounds"),
    (f'int i = 0; {NEW} while (bpf_iter_num_next(&it)) {{ value[i] = 1; i++; asm volatile("" : "+r"(i)); }} {DESTROY}',
     "R. (min|max|unbounded)"),
    ("memcpy(value, data, 4);", "R2 offset is outside of the packet"),
    ("memset(value, 0, 17);", "R1 .* value is outside of the allowed memory range"),
    ("memset(value, 0, ctx->rx_queue_index);", "R. .*"),
    ("memcpy(value, ctx, 16);", "R2 type=ctx expected="),
    ("key = ctx->rx_queue_index; char *other = bpf_map_lookup_elem(&bytes, &key); memset(other, 0, 4);",
     "R1 invalid mem access 'map_value_or_null'"),
    ("memcpy(value, end, 4);", "R2 invalid mem access 'pkt_end'"),
]  # fmt: skip


def verdict(build, body):
    object = build(HEAD.replace("BODY", body))
    return verify(Subject.of(object, object.program()), limit=20_000)


@pytest.mark.parametrize("body", ACCEPTED)
def test_accepted(build, body):
    assert verdict(build, body).error is None


@pytest.mark.parametrize(("body", "message"), REFUSED)
def test_refused(build, body, message):
    error = verdict(build, body).error
    assert error and re.search(message, error.message), error
