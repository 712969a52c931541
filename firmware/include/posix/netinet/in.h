/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BPFNIC_NETINET_IN_H
#define BPFNIC_NETINET_IN_H

#include <linux/in.h>
#include <linux/in6.h>
#include <sys/socket.h>

typedef uint16_t in_port_t;
typedef uint32_t in_addr_t;

#ifndef htons
#define htons(x) __builtin_bswap16(x)
#define ntohs(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)
#define ntohl(x) __builtin_bswap32(x)
#endif

#endif
