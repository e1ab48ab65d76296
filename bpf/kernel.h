/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Stable user-space ABI of the kernel that its BPF headers do not bring. */
#ifndef RINGFENCE_KERNEL_H
#define RINGFENCE_KERNEL_H

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_UNSPEC 0

#define NETLINK_ROUTE 0

#define RF_LO 1 /* the loopback device has this index in every namespace (LOOPBACK_IFINDEX) */

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3

#define SOL_SOCKET 1 /* of amd64 and arm64 */
#define SO_MARK 36

/* Flags of a TCP header. */
#define RF_TCP_SYN 0x02
#define RF_TCP_SYNACK 0x12

#define EPERM 1
#define EACCES 13
#define EPROTONOSUPPORT 93
#define EAFNOSUPPORT 97

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

#ifndef barrier
#define barrier() __asm__ volatile("" ::: "memory")
#endif

struct rf_iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__be16 check;
	__be32 saddr;
	__be32 daddr;
};

struct rf_ip6hdr {
	__be32 flow;
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

#endif
