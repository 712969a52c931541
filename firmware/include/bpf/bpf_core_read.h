/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Reading structures whose layout is known only where the program is loaded (CO-RE), by libbpf's names: field and type
 * queries that the compiler turns into relocations, and reads of chains of pointers.
 */
#ifndef BPFNIC_BPF_CORE_READ_H
#define BPFNIC_BPF_CORE_READ_H

#include <bpf/bpf_helpers.h>

/* What __builtin_preserve_field_info, _type_info and _enum_value are asked for. */
enum bpf_field_info_kind {
	BPF_FIELD_BYTE_OFFSET = 0,
	BPF_FIELD_BYTE_SIZE = 1,
	BPF_FIELD_EXISTS = 2,
	BPF_FIELD_SIGNED = 3,
	BPF_FIELD_LSHIFT_U64 = 4,
	BPF_FIELD_RSHIFT_U64 = 5,
};

enum bpf_type_id_kind {
	BPF_TYPE_ID_LOCAL = 0,
	BPF_TYPE_ID_TARGET = 1,
};

enum bpf_type_info_kind {
	BPF_TYPE_EXISTS = 0,
	BPF_TYPE_SIZE = 1,
	BPF_TYPE_MATCHES = 2,
};

enum bpf_enum_value_kind {
	BPF_ENUMVAL_EXISTS = 0,
	BPF_ENUMVAL_VALUE = 1,
};

#define __CORE_RELO(src, field, info) __builtin_preserve_field_info((src)->field, BPF_FIELD_##info)

/* A field is given as an expression, or as a type and a member. */
#define ___bpf_field_ref1(field) (field)
#define ___bpf_field_ref2(type, field) (((typeof(type) *)0)->field)
#define ___bpf_field_ref(args...) ___bpf_apply(___bpf_field_ref, ___bpf_narg(args))(args)

#define bpf_core_field_exists(field...) __builtin_preserve_field_info(___bpf_field_ref(field), BPF_FIELD_EXISTS)
#define bpf_core_field_size(field...) __builtin_preserve_field_info(___bpf_field_ref(field), BPF_FIELD_BYTE_SIZE)
#define bpf_core_field_offset(field...) __builtin_preserve_field_info(___bpf_field_ref(field), BPF_FIELD_BYTE_OFFSET)

#define ___bpf_typeof(type) ((typeof(type) *)0)
#define bpf_core_type_id_local(type) __builtin_btf_type_id(*___bpf_typeof(type), BPF_TYPE_ID_LOCAL)
#define bpf_core_type_id_kernel(type) __builtin_btf_type_id(*___bpf_typeof(type), BPF_TYPE_ID_TARGET)
#define bpf_core_type_exists(type) __builtin_preserve_type_info(*___bpf_typeof(type), BPF_TYPE_EXISTS)
#define bpf_core_type_matches(type) __builtin_preserve_type_info(*___bpf_typeof(type), BPF_TYPE_MATCHES)
#define bpf_core_type_size(type) __builtin_preserve_type_info(*___bpf_typeof(type), BPF_TYPE_SIZE)

#define bpf_core_enum_value_exists(enum_type, enum_value)                                                              \
	__builtin_preserve_enum_value(*(typeof(enum_type) *)enum_value, BPF_ENUMVAL_EXISTS)
#define bpf_core_enum_value(enum_type, enum_value)                                                                     \
	__builtin_preserve_enum_value(*(typeof(enum_type) *)enum_value, BPF_ENUMVAL_VALUE)

/* Reads of `size` bytes at a source address that is relocated. */
#define bpf_core_read(dst, sz, src)                                                                                    \
	bpf_probe_read_kernel(dst, sz, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user(dst, sz, src)                                                                               \
	bpf_probe_read_user(dst, sz, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_str(dst, sz, src)                                                                                \
	bpf_probe_read_kernel_str(dst, sz, (const void *)__builtin_preserve_access_index(src))
#define bpf_core_read_user_str(dst, sz, src)                                                                           \
	bpf_probe_read_user_str(dst, sz, (const void *)__builtin_preserve_access_index(src))

#define bpf_core_cast(ptr, type)                                                                                       \
	((typeof(type) *)bpf_rdonly_cast((ptr), bpf_core_type_id_kernel(type)))
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/* The value of a bitfield: as many bytes as hold it, shifted left until its sign is on top, then right. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define __CORE_BITFIELD_PROBE_READ(dst, src, fld)                                                                      \
	bpf_probe_read_kernel((void *)dst, __CORE_RELO(src, fld, BYTE_SIZE),                                           \
			      (const void *)src + __CORE_RELO(src, fld, BYTE_OFFSET))
#else
#define __CORE_BITFIELD_PROBE_READ(dst, src, fld)                                                                      \
	bpf_probe_read_kernel((void *)dst + (8 - __CORE_RELO(src, fld, BYTE_SIZE)),                                    \
			      __CORE_RELO(src, fld, BYTE_SIZE),                                                        \
			      (const void *)src + __CORE_RELO(src, fld, BYTE_OFFSET))
#endif

#define ___bpf_bitfield(val, s, field)                                                                                 \
	({                                                                                                             \
		val <<= __CORE_RELO(s, field, LSHIFT_U64);                                                             \
		if (__CORE_RELO(s, field, SIGNED))                                                                     \
			val = ((long long)val) >> __CORE_RELO(s, field, RSHIFT_U64);                                   \
		else                                                                                                   \
			val = val >> __CORE_RELO(s, field, RSHIFT_U64);                                                \
		val;                                                                                                   \
	})

#define BPF_CORE_READ_BITFIELD_PROBED(s, field)                                                                        \
	({                                                                                                             \
		unsigned long long ___val = 0;                                                                         \
		__CORE_BITFIELD_PROBE_READ(&___val, s, field);                                                         \
		___bpf_bitfield(___val, s, field);                                                                     \
	})

#define BPF_CORE_READ_BITFIELD(s, field)                                                                               \
	({                                                                                                             \
		const void *___p = (const void *)s + __CORE_RELO(s, field, BYTE_OFFSET);                               \
		unsigned long long ___val;                                                                             \
		asm volatile("" : "+r"(___p)); /* the access stays relative to the relocated address */                \
		switch (__CORE_RELO(s, field, BYTE_SIZE)) {                                                            \
		case 1: ___val = *(const unsigned char *)___p; break;                                                  \
		case 2: ___val = *(const unsigned short *)___p; break;                                                 \
		case 4: ___val = *(const unsigned int *)___p; break;                                                   \
		case 8: ___val = *(const unsigned long long *)___p; break;                                             \
		default: ___val = 0; break;                                                                            \
		}                                                                                                      \
		___bpf_bitfield(___val, s, field);                                                                     \
	})

/* Chains: BPF_CORE_READ(a, b, c, d) is a->b->c->d, each arrow one read. The last member is read into the result, the
 * ones before it into a pointer. ___bpf_walkN takes the N members before the last.
 */
#define ___bpf_arrow1(a) a
#define ___bpf_arrow2(a, b) a->b
#define ___bpf_arrow3(a, b, c) a->b->c
#define ___bpf_arrow4(a, b, c, d) a->b->c->d
#define ___bpf_arrow5(a, b, c, d, e) a->b->c->d->e
#define ___bpf_arrow6(a, b, c, d, e, f) a->b->c->d->e->f
#define ___bpf_arrow7(a, b, c, d, e, f, g) a->b->c->d->e->f->g
#define ___bpf_arrow8(a, b, c, d, e, f, g, h) a->b->c->d->e->f->g->h
#define ___bpf_arrow9(a, b, c, d, e, f, g, h, i) a->b->c->d->e->f->g->h->i
#define ___bpf_arrow10(a, b, c, d, e, f, g, h, i, j) a->b->c->d->e->f->g->h->i->j
#define ___bpf_arrow(args...) ___bpf_apply(___bpf_arrow, ___bpf_narg(args))(args)

#define ___bpf_last1(x) x
#define ___bpf_last2(_1, x) x
#define ___bpf_last3(_1, _2, x) x
#define ___bpf_last4(_1, _2, _3, x) x
#define ___bpf_last5(_1, _2, _3, _4, x) x
#define ___bpf_last6(_1, _2, _3, _4, _5, x) x
#define ___bpf_last7(_1, _2, _3, _4, _5, _6, x) x
#define ___bpf_last8(_1, _2, _3, _4, _5, _6, _7, x) x
#define ___bpf_last9(_1, _2, _3, _4, _5, _6, _7, _8, x) x
#define ___bpf_last10(_1, _2, _3, _4, _5, _6, _7, _8, _9, x) x
#define ___bpf_last(args...) ___bpf_apply(___bpf_last, ___bpf_narg(args))(args)

#define ___bpf_but_last2(_1, x) _1
#define ___bpf_but_last3(_1, _2, x) _1, _2
#define ___bpf_but_last4(_1, _2, _3, x) _1, _2, _3
#define ___bpf_but_last5(_1, _2, _3, _4, x) _1, _2, _3, _4
#define ___bpf_but_last6(_1, _2, _3, _4, _5, x) _1, _2, _3, _4, _5
#define ___bpf_but_last7(_1, _2, _3, _4, _5, _6, x) _1, _2, _3, _4, _5, _6
#define ___bpf_but_last8(_1, _2, _3, _4, _5, _6, _7, x) _1, _2, _3, _4, _5, _6, _7
#define ___bpf_but_last9(_1, _2, _3, _4, _5, _6, _7, _8, x) _1, _2, _3, _4, _5, _6, _7, _8
#define ___bpf_but_last10(_1, _2, _3, _4, _5, _6, _7, _8, _9, x) _1, _2, _3, _4, _5, _6, _7, _8, _9
#define ___bpf_but_last(args...) ___bpf_apply(___bpf_but_last, ___bpf_narg(args))(args)

#define ___bpf_type(args...) typeof(___bpf_arrow(args))
#define ___bpf_step(fn, dst, type, src, member) fn((void *)(dst), sizeof(*(dst)), &((type)(src))->member);

/* The first arrow starts from the source, the others from the pointer read before. */
#define ___bpf_walk1(fn, s, a) ___bpf_step(fn, &__t, ___bpf_type(s), s, a)
#define ___bpf_walk2(fn, s, args...)                                                                                   \
	___bpf_walk1(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk3(fn, s, args...)                                                                                   \
	___bpf_walk2(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk4(fn, s, args...)                                                                                   \
	___bpf_walk3(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk5(fn, s, args...)                                                                                   \
	___bpf_walk4(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk6(fn, s, args...)                                                                                   \
	___bpf_walk5(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk7(fn, s, args...)                                                                                   \
	___bpf_walk6(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk8(fn, s, args...)                                                                                   \
	___bpf_walk7(fn, s, ___bpf_but_last(args)) ___bpf_next(fn, (s, ___bpf_but_last(args)), ___bpf_last(args))
#define ___bpf_walk(fn, s, args...) ___bpf_apply(___bpf_walk, ___bpf_narg(args))(fn, s, args)
#define ___bpf_next(fn, path, member) ___bpf_step(fn, &__t, typeof(___bpf_arrow path), __t, member)

#define ___bpf_read_chain0(fn, last, dst, s, a) ___bpf_step(last, dst, ___bpf_type(s), s, a)
#define ___bpf_read_chain1(fn, last, dst, s, args...)                                                                  \
	const void *__t;                                                                                               \
	___bpf_walk(fn, s, ___bpf_but_last(args))                                                                      \
	___bpf_step(last, dst, ___bpf_type(s, ___bpf_but_last(args)), __t, ___bpf_last(args))
#define ___bpf_is_chain(...) ___bpf_nth(_, ##__VA_ARGS__, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0)
#define ___bpf_read_chain(fn, last, dst, s, args...)                                                                   \
	({                                                                                                             \
		___bpf_apply(___bpf_read_chain, ___bpf_is_chain(args))(fn, last, dst, s, args)                         \
	})

#define BPF_CORE_READ_INTO(dst, src, a, ...) ___bpf_read_chain(bpf_core_read, bpf_core_read, dst, src, a, ##__VA_ARGS__)
#define BPF_CORE_READ_USER_INTO(dst, src, a, ...)                                                                      \
	___bpf_read_chain(bpf_core_read_user, bpf_core_read_user, dst, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ_INTO(dst, src, a, ...)                                                                          \
	___bpf_read_chain(bpf_probe_read_kernel, bpf_probe_read_kernel, dst, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ_USER_INTO(dst, src, a, ...)                                                                     \
	___bpf_read_chain(bpf_probe_read_user, bpf_probe_read_user, dst, src, a, ##__VA_ARGS__)
#define BPF_CORE_READ_STR_INTO(dst, src, a, ...)                                                                       \
	___bpf_read_chain(bpf_core_read, bpf_core_read_str, dst, src, a, ##__VA_ARGS__)
#define BPF_CORE_READ_USER_STR_INTO(dst, src, a, ...)                                                                  \
	___bpf_read_chain(bpf_core_read_user, bpf_core_read_user_str, dst, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ_STR_INTO(dst, src, a, ...)                                                                      \
	___bpf_read_chain(bpf_probe_read_kernel, bpf_probe_read_kernel_str, dst, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ_USER_STR_INTO(dst, src, a, ...)                                                                 \
	___bpf_read_chain(bpf_probe_read_user, bpf_probe_read_user_str, dst, src, a, ##__VA_ARGS__)

#define ___bpf_value(into, src, a, args...)                                                                            \
	({                                                                                                             \
		___bpf_type((src), a, ##args) __r;                                                                     \
		into(&__r, (src), a, ##args);                                                                          \
		__r;                                                                                                   \
	})
#define BPF_CORE_READ(src, a, ...) ___bpf_value(BPF_CORE_READ_INTO, src, a, ##__VA_ARGS__)
#define BPF_CORE_READ_USER(src, a, ...) ___bpf_value(BPF_CORE_READ_USER_INTO, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ(src, a, ...) ___bpf_value(BPF_PROBE_READ_INTO, src, a, ##__VA_ARGS__)
#define BPF_PROBE_READ_USER(src, a, ...) ___bpf_value(BPF_PROBE_READ_USER_INTO, src, a, ##__VA_ARGS__)

#endif
