/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BPFNIC_SYS_TYPES_H
#define BPFNIC_SYS_TYPES_H

#include <linux/types.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u_int8_t;
typedef uint16_t u_int16_t;
typedef uint32_t u_int32_t;
typedef uint64_t u_int64_t;
typedef long ssize_t;

#endif
