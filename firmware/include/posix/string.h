/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The compiler expands these for small constant sizes; a program has no library to call for the rest.
 */
#ifndef BPFNIC_STRING_H
#define BPFNIC_STRING_H

#include <stddef.h>

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);

#endif
