/* bpf_trace_printk() and bpf_trace_vprintk(): bpf_bprintf_prepare(), kernel/bpf/helpers.c, says which formats there are,
 * bstr_printf(), lib/vsprintf.c, what they print; the host makes the text (host/trace.py). A record has the clock (8
 * bytes), the format with its 0, and one argument behind the other: 8 bytes of a number, character or pointer, 4 or 16 of
 * an address, a string with its 0. */
#pragma once

#define ARGUMENT_BYTES 512 /* what the kernel makes of all arguments has as many at most */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trace_records SEC(".maps");

static __always_inline int is_space(unsigned char c)
{
	return c == ' ' || (__u8)(c - '\t') < 5;
}

static __always_inline int is_digit(unsigned char c)
{
	return (__u8)(c - '0') < 10;
}

/* As lib/ctype.c has it: in Latin-1. */
static __always_inline int is_alphanumeric(unsigned char c)
{
	return is_digit(c) || (__u8)((c | 0x20) - 'a') < 26 || (c >= 0xc0 && c != 0xd7 && c != 0xf7);
}

/* Text may have it: of ASCII what is printed, and all that isn't ASCII. */
static __always_inline int is_text(unsigned char c)
{
	return c >= ' ' ? c != 0x7f : is_space(c);
}

/* A string or plain pointer may end in front of it: an end, a space or punctuation. */
static __always_inline int is_apart(unsigned char c)
{
	return !c || (is_text(c) && !is_alphanumeric(c) && (c < 0x80 || c >= 0xa0));
}

/* A program can read the byte there. */
static __always_inline int reaches(__u64 address)
{
	struct xdp_md *context = (void *)CONTEXT_WINDOW;

	if (address >= PACKET_WINDOW && address < MAP_VALUES)
		return address >= context->data_meta && address < context->data_end;
	return address < MAP_HANDLES && (address >= MAP_VALUES || address - STACK_WINDOW < STACK_BYTES);
}

/* Says how many characters are printed, or an error. `arguments`: `count` of them. */
static __always_inline long trace(const char *format, __u32 size, const __u64 *arguments, __u32 count)
{
	__u64 length = 0, used = 0, strings = 0, i;
	const char *at, *end = format + size;
	char *record, *to, c;
	long error;

	for (at = format; at < end && *at; at++)
		if (*at == 's')
			strings = ARGUMENT_BYTES;
	if (at == end)
		return -EINVAL;
	/* Without room in the ring the text is lost; the kernel doesn't say so either. */
	record = to = bpf_ringbuf_reserve(&trace_records, 8 + (at - format + 1) + 16 * count + strings, 0);
	if (record) {
		*(__u64 *)to = bpf_ktime_get_ns();
		for (to += 8, i = 0; i <= at - format; i++)
			*to++ = format[i];
	}
	for (at = format; *at; at++) {
		__u64 argument, number, width = 0, takes, base = 16, text = 0;
		int plus = 0, ends, bare = 0;
		char kind, letter;

		error = -EINVAL;
		if (!is_text(*at))
			goto refused;
		length++;
		if (*at != '%')
			continue;
		if (at[1] == '%') {
			at++;
			continue;
		}
		length--;
		if (!count--)
			goto refused;
		argument = number = *arguments++;
		for (at++; *at == '0' || *at == '+' || *at == '-' || *at == ' '; at++)
			plus |= *at == '+' || *at == ' ';
		if (*at != '0')
			for (; is_digit(*at); at++)
				width = width * 10 + *at - '0';

		/* What it is: `takes` bytes in the kernel's buffer. Behind strings and plain pointers comes no letter. */
		kind = letter = *at;
		takes = 8;
		ends = kind == 's';
		if (kind == 'p') {
			letter = at[1];
			if (letter == 'K' || letter == 'x' || letter == 's' || letter == 'S' || letter == 'B') {
				at++;
				text = letter == 'K' || letter == 'x' ? 0 : 2; /* 0x, in the place of a symbol */
			} else if ((letter == 'i' || letter == 'I') && (at[2] == '4' || at[2] == '6')) {
				at += 2;
				kind = *at;
			} else {
				ends = 1;
				if ((letter == 'k' || letter == 'u') && at[2] == 's') {
					at += 2;
					kind = 's';
					bare = 1;
				}
			}
		} else if (kind != 's' && kind != 'c') {
			takes = 4;
			for (i = 0; *at == 'l' && i < 2; i++, at++)
				takes = 8;
			kind = 'd';
			letter = *at;
			base = letter == 'x' || letter == 'X' ? 16 : 10;
			if (base == 10 && letter != 'd' && letter != 'i' && letter != 'u')
				goto refused;
		}
		if (ends && !is_apart(at[1]))
			goto refused;

		error = -ENOSPC;
		if (kind == 'd' || kind == 'p')
			used = (used + 3) & ~3ULL;
		if (kind == 's' || kind == 'c')
			takes = 1;
		if (kind == '4' || kind == '6')
			takes = kind == '4' ? 4 : 16;
		if (used + takes > ARGUMENT_BYTES)
			goto refused;

		if (kind == 's' || kind == '4' || kind == '6') {
			__u64 most = kind == 's' ? ARGUMENT_BYTES - 1 - used : takes;

			if (letter == 'u') /* there is no user's memory here */
				most = 0;
			for (i = 0; i < most; i++) {
				c = reaches(argument + i) ? *(const char *)(argument + i) : 0;
				if (kind == 's' && !c)
					break;
				if (record)
					*to++ = c;
				text += kind == 's' ? 1 : 2 + ((__u8)c > 9) + ((__u8)c > 99);
			}
			if (kind == 's' && record)
				*to++ = 0;
			if (kind == '4')
				text = letter == 'i' ? 15 : text - 1;
			if (kind == '6')
				text = letter == 'i' ? 32 : 39;
			takes = text + 1;
			bare |= kind != 's';
		} else {
			if (record) {
				*(__u64 *)to = argument;
				to += 8;
			}
			if (kind == 'd' && base == 10 && letter != 'u') {
				__s64 value = takes == 8 ? argument : (__s64)(int)argument;

				text = value < 0 || plus;
				number = value < 0 ? -value : value;
			} else if (takes == 4) {
				number = (__u32)argument;
			}
			if (kind == 'p' && !text && !width)
				text = 16;
			else if (kind == 'c')
				text = 1;
			else
				for (text++; number >= base; number /= base)
					text++;
		}
		used += takes;
		length += text < width && !bare ? width : text;
		if (letter != kind && kind != 'd') /* a pointer's letters, and those behind them */
			while (is_alphanumeric(at[1]))
				at++;
	}
	if (record)
		bpf_ringbuf_submit(record, 0);
	return length;

refused:
	if (record)
		bpf_ringbuf_discard(record, 0);
	return error;
}
