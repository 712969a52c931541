/* The maps that calls are given. */
#pragma once

#define MAP(NAME, TYPE, KEY, VALUE, ENTRIES, FLAGS)                                                                    \
	struct { __uint(type, BPF_MAP_TYPE_##TYPE); __uint(max_entries, ENTRIES); __uint(map_flags, FLAGS);           \
		 __uint(key_size, KEY); __uint(value_size, VALUE); } NAME SEC(".maps")

MAP(array, ARRAY, 4, 24, 8, 0);
MAP(percpu_array, PERCPU_ARRAY, 4, 8, 8, 0);
MAP(hash, HASH, 8, 16, 8, 0);
MAP(percpu_hash, PERCPU_HASH, 4, 8, 8, 0);
MAP(lru, LRU_HASH, 4, 8, 4, 0);
MAP(lru_percpu, LRU_PERCPU_HASH, 12, 8, 4, 0);
MAP(lpm, LPM_TRIE, 8, 8, 2, BPF_F_NO_PREALLOC);
MAP(queue, QUEUE, 0, 8, 4, 0);
MAP(stack, STACK, 0, 12, 4, 0);
MAP(ring, RINGBUF, 0, 0, 4096, 0);
MAP(events, PERF_EVENT_ARRAY, 4, 4, 32, 0);
MAP(programs, PROG_ARRAY, 4, 4, 4, 0);
MAP(ports, DEVMAP, 4, 4, 4, 0);
MAP(queues, CPUMAP, 4, 4, 4, 0);
