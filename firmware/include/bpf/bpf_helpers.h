/* SPDX-License-Identifier: BSD-2-Clause
 *
 * What a BPF program written against libbpf expects to find under this name: sections, map definitions, attributes,
 * printing. Include <linux/bpf.h> (or vmlinux.h) before it.
 */
#ifndef BPFNIC_BPF_HELPERS_H
#define BPFNIC_BPF_HELPERS_H

#include <bpf/bpf_helper_defs.h>

/* Maps: a structure of pointers whose types, in BTF, say what the map is. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
#define __ulong(name, val) enum { ___bpf_concat(__unique_value, __COUNTER__) = val } name

/* A program, map or variable in a section that the loader looks for. Unused ones are kept too. */
#define SEC(name)                                                                                                      \
	_Pragma("GCC diagnostic push")                                                                                 \
	_Pragma("GCC diagnostic ignored \"-Wignored-attributes\"")                                                     \
	__attribute__((section(name), used))                                                                           \
	_Pragma("GCC diagnostic pop")

#undef __always_inline /* linux/stddef.h has a weaker one */
#define __always_inline inline __attribute__((always_inline))
#ifndef __noinline
#define __noinline __attribute__((noinline))
#endif
#ifndef __weak
#define __weak __attribute__((weak))
#endif
#define __hidden __attribute__((visibility("hidden")))

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#ifndef container_of
#define container_of(ptr, type, member)                                                                                \
	({                                                                                                             \
		void *__member = (void *)(ptr);                                                                        \
		(type *)(__member - offsetof(type, member));                                                           \
	})
#endif

/* The compiler forgets what it knows about memory, or about one variable's value. */
#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif
#ifndef barrier_var
#define barrier_var(var) asm volatile("" : "+r"(var))
#endif

#ifndef __bpf_unreachable
#define __bpf_unreachable() __builtin_trap()
#endif

/* Externs that the loader resolves, and pointers that the verifier tracks. */
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))
#define __kptr_untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define __uptr __attribute__((btf_type_tag("uptr")))
#define __arg_ctx __attribute__((btf_decl_tag("arg:ctx")))
#define __arg_nonnull __attribute__((btf_decl_tag("arg:nonnull")))
#define __arg_nullable __attribute__((btf_decl_tag("arg:nullable")))
#define __arg_trusted __attribute__((btf_decl_tag("arg:trusted")))
#define __arg_untrusted __attribute__((btf_decl_tag("arg:untrusted")))
#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))
#define bpf_ksym_exists(sym) (!!(sym))

enum libbpf_pin_type {
	LIBBPF_PIN_NONE,
	LIBBPF_PIN_BY_NAME,
};

enum libbpf_tristate {
	TRI_NO = 0,
	TRI_YES = 1,
	TRI_MODULE = 2,
};

/* A map as it was defined before BTF: section "maps" holds one of these a map. */
struct bpf_map_def {
	unsigned int type;
	unsigned int key_size;
	unsigned int value_size;
	unsigned int max_entries;
	unsigned int map_flags;
};

#define BPF_ANNOTATE_KV_PAIR(name, type_key, type_val)                                                                 \
	struct ____btf_map_##name {                                                                                    \
		type_key key;                                                                                          \
		type_val value;                                                                                        \
	};                                                                                                             \
	struct ____btf_map_##name __attribute__((section(".maps." #name), used)) ____btf_map_##name = {}

/* Token pasting and counting of arguments, for the macros below and for bpf_core_read.h. */
#ifndef ___bpf_concat
#define ___bpf_concat(a, b) a##b
#endif
#ifndef ___bpf_apply
#define ___bpf_apply(fn, n) ___bpf_concat(fn, n)
#endif
#ifndef ___bpf_nth
#define ___bpf_nth(_, _1, _2, _3, _4, _5, _6, _7, _8, _9, _a, _b, _c, N, ...) N
#endif
#ifndef ___bpf_narg
#define ___bpf_narg(...) ___bpf_nth(_, ##__VA_ARGS__, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#endif

#define ___bpf_fill0(arr, p, x)
#define ___bpf_fill1(arr, p, x) arr[p] = x
#define ___bpf_fill2(arr, p, x, args...) arr[p] = x; ___bpf_fill1(arr, p + 1, args)
#define ___bpf_fill3(arr, p, x, args...) arr[p] = x; ___bpf_fill2(arr, p + 1, args)
#define ___bpf_fill4(arr, p, x, args...) arr[p] = x; ___bpf_fill3(arr, p + 1, args)
#define ___bpf_fill5(arr, p, x, args...) arr[p] = x; ___bpf_fill4(arr, p + 1, args)
#define ___bpf_fill6(arr, p, x, args...) arr[p] = x; ___bpf_fill5(arr, p + 1, args)
#define ___bpf_fill7(arr, p, x, args...) arr[p] = x; ___bpf_fill6(arr, p + 1, args)
#define ___bpf_fill8(arr, p, x, args...) arr[p] = x; ___bpf_fill7(arr, p + 1, args)
#define ___bpf_fill9(arr, p, x, args...) arr[p] = x; ___bpf_fill8(arr, p + 1, args)
#define ___bpf_fill10(arr, p, x, args...) arr[p] = x; ___bpf_fill9(arr, p + 1, args)
#define ___bpf_fill11(arr, p, x, args...) arr[p] = x; ___bpf_fill10(arr, p + 1, args)
#define ___bpf_fill12(arr, p, x, args...) arr[p] = x; ___bpf_fill11(arr, p + 1, args)
#define ___bpf_fill(arr, args...) ___bpf_apply(___bpf_fill, ___bpf_narg(args))(arr, 0, args)

/* An array of the arguments, which must not be empty for C: one entry at least. */
#define ___bpf_parameters(name, args...)                                                                               \
	unsigned long long name[___bpf_narg(args) ? ___bpf_narg(args) : 1];                                            \
	_Pragma("GCC diagnostic push")                                                                                 \
	_Pragma("GCC diagnostic ignored \"-Wint-conversion\"")                                                         \
	___bpf_fill(name, args);                                                                                       \
	_Pragma("GCC diagnostic pop")

#define BPF_SNPRINTF(out, out_size, fmt, args...)                                                                      \
	({                                                                                                             \
		static const char ___fmt[] = fmt;                                                                      \
		___bpf_parameters(___param, args)                                                                      \
		bpf_snprintf(out, out_size, ___fmt, ___param, ___bpf_narg(args) * sizeof(___param[0]));                \
	})

#define BPF_SEQ_PRINTF(seq, fmt, args...)                                                                              \
	({                                                                                                             \
		static const char ___fmt[] = fmt;                                                                      \
		___bpf_parameters(___param, args)                                                                      \
		bpf_seq_printf(seq, ___fmt, sizeof(___fmt), ___param, ___bpf_narg(args) * sizeof(___param[0]));        \
	})

/* printf for programs: up to 3 arguments by bpf_trace_printk, up to 12 by bpf_trace_vprintk. */
#ifdef BPF_NO_GLOBAL_DATA
#define BPF_PRINTK_FMT_MOD
#else
#define BPF_PRINTK_FMT_MOD static const
#endif

#define __bpf_printk(fmt, ...)                                                                                         \
	({                                                                                                             \
		BPF_PRINTK_FMT_MOD char ____fmt[] = fmt;                                                               \
		bpf_trace_printk(____fmt, sizeof(____fmt), ##__VA_ARGS__);                                             \
	})

#define __bpf_vprintk(fmt, args...)                                                                                    \
	({                                                                                                             \
		static const char ___fmt[] = fmt;                                                                      \
		___bpf_parameters(___param, args)                                                                      \
		bpf_trace_vprintk(___fmt, sizeof(___fmt), ___param, ___bpf_narg(args) * sizeof(___param[0]));          \
	})

#define ___bpf_pick_printk(...)                                                                                        \
	___bpf_nth(_, ##__VA_ARGS__, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk,        \
		   __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_vprintk, __bpf_printk /*3*/, __bpf_printk /*2*/, \
		   __bpf_printk /*1*/, __bpf_printk /*0*/)

#define bpf_printk(fmt, args...) ___bpf_pick_printk(args)(fmt, ##args)

/* A tail call to a constant slot: the map in r2 and the slot in r3 as constants, so that a JIT can make it a jump. */
#if __clang_major__ >= 8 && defined(__bpf__)
static __always_inline void bpf_tail_call_static(void *ctx, const void *map, const __u32 slot)
{
	if (!__builtin_constant_p(slot))
		__bpf_unreachable();

	asm volatile("r1 = %[ctx]\n\t"
		     "r2 = %[map]\n\t"
		     "r3 = %[slot]\n\t"
		     "call 12"
		     :
		     : [ctx] "r"(ctx), [map] "r"(map), [slot] "i"(slot)
		     : "r0", "r1", "r2", "r3", "r4", "r5");
}
#endif

/* Counted loops by the kernel's open-coded iterator. */
struct bpf_iter_num;

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __weak __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __weak __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __weak __ksym;

#ifndef bpf_for_each
#define bpf_for_each(type, cur, args...)                                                                               \
	for (struct bpf_iter_##type ___it __attribute__((aligned(8), cleanup(bpf_iter_##type##_destroy))),             \
	     *___p __attribute__((unused)) =                                                                           \
		     (bpf_iter_##type##_new(&___it, ##args), (void)bpf_iter_##type##_destroy, (void *)0);              \
	     (((cur) = bpf_iter_##type##_next(&___it)));)
#endif

#ifndef bpf_for
#define bpf_for(i, start, end)                                                                                         \
	for (struct bpf_iter_num ___it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))),                     \
	     *___p __attribute__((unused)) =                                                                           \
		     (bpf_iter_num_new(&___it, (start), (end)), (void)bpf_iter_num_destroy, (void *)0);                \
	     ({                                                                                                        \
		     int *___t = bpf_iter_num_next(&___it);                                                            \
		     (___t && ((i) = *___t, (i) >= (start) && (i) < (end)));                                           \
	     });)
#endif

#ifndef bpf_repeat
#define bpf_repeat(n)                                                                                                  \
	for (struct bpf_iter_num ___it __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))),                     \
	     *___p __attribute__((unused)) =                                                                           \
		     (bpf_iter_num_new(&___it, 0, (n)), (void)bpf_iter_num_destroy, (void *)0);                        \
	     bpf_iter_num_next(&___it);)
#endif

#endif
