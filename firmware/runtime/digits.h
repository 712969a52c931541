/* Numbers in text as bpf_strtol() and bpf_strtoul() read them: __bpf_strtoull(), kernel/bpf/helpers.c, and
 * _parse_integer(), lib/kstrtox.c. */
#pragma once

#define BASE_MASK 0x1f
#define LONGEST 63 /* characters behind the sign that the kernel looks at */

static __always_inline int is_space(unsigned char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r') || c == 0xa0; /* lib/ctype.c: Latin-1 */
}

/* The value of a digit, at least 16 for what is none. */
static __always_inline __u32 digit(unsigned char c)
{
	__u32 number = c - '0';
	__u32 letter = (c | 0x20) - 'a';

	return number < 10 ? number : letter < 6 ? letter + 10 : 16;
}

/* How many characters the number takes, or an error. */
static __always_inline long parse(const unsigned char *text, __u64 size, __u64 flags, __u64 *result, int *negative)
{
	__u64 base = flags & BASE_MASK, value = 0;
	const unsigned char *at = text, *end = text + size, *digits;
	int overflow = 0;

	if (!size || (base != 0 && base != 8 && base != 10 && base != 16) || flags & ~BASE_MASK)
		return -EINVAL;
	while (at < end && is_space(*at))
		at++;
	*negative = at < end && *at == '-';
	at += *negative;
	if (at == end)
		return -EINVAL;
	if (end - at > LONGEST)
		end = at + LONGEST;
	if ((base == 0 || base == 16) && at[0] == '0' && end - at > 1 && (at[1] | 0x20) == 'x') {
		if (base == 16 || (end - at > 2 && digit(at[2]) < 16)) {
			base = 16;
			at += 2;
		}
	}
	if (base == 0)
		base = at < end && *at == '0' ? 8 : 10;
	for (digits = at; at < end; at++) {
		__u64 next = digit(*at);

		if (next >= base)
			break;
		if (value >> 60 && value > (~0ULL - next) / base)
			overflow = 1;
		value = value * base + next;
	}
	if (overflow)
		return -ERANGE;
	*result = value;
	return at == digits ? -EINVAL : at - text;
}
