/* bpf_for(), bpf_repeat(): kernel/bpf/bpf_iter.c. */
#pragma once

#define MAX_LOOPS (8 * 1024 * 1024)

struct numbers {
	int current, end;
};
