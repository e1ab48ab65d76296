/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What security hooks are handed, reduced to the members we read, as in task.h.
 */
#ifndef RINGFENCE_OBJECT_H
#define RINGFENCE_OBJECT_H

#define RF_NO_NEW_PRIVS 1UL /* bit 0 of task_struct.atomic_flags, since 3.17 */

/* struct sockaddr_in and sockaddr_in6 of the system call ABI in one. */
struct rf_sockaddr {
	__u16 family;
	__be16 port;
	__be32 v4; /* of an IPv6 address: the flow */
	__be32 v6[4];
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sock_common {
	unsigned short skc_family;
	__be16 skc_dport;
	__be32 skc_daddr;
	struct {
		__be32 words[4];
	} skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol; /* since 5.6 a member of its own */
};

struct socket {
	struct sock *sk;
};

struct msghdr {
	void *msg_name;
	int msg_namelen;
};

struct qstr {
	const unsigned char *name;
};

struct super_block {
	__u32 s_dev;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct super_block *d_sb;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

#pragma clang attribute pop

#endif
