/* SPDX-License-Identifier: BSD-2-Clause
 *
 * linux/icmp.h and others ask for it through linux/if.h. The C library's own header doesn't suit a BPF target.
 */
#ifndef BPFNIC_SYS_SOCKET_H
#define BPFNIC_SYS_SOCKET_H

#include <linux/socket.h>
#include <sys/types.h>

typedef unsigned short sa_family_t;
typedef unsigned int socklen_t;

struct sockaddr {
	sa_family_t sa_family;
	char sa_data[14];
};

#define AF_UNSPEC 0
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define PF_INET AF_INET
#define PF_INET6 AF_INET6

#endif
