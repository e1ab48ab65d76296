/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The one header C and Go share: every struct and enum below gets a Go twin
 * through bpf2go, and a test compares the two through BTF.
 *
 * Rules: no implicit padding, fixed-width members, deny is zero everywhere.
 * Any change of a layout, of a map's shape or of an enum's meaning raises
 * RF_LAYOUT, and adds a row to formerLayouts in package kernel, with which a
 * keeper takes over what runs behind the layout before its own.
 */
#ifndef RINGFENCE_H
#define RINGFENCE_H

/*
 * The layout after this one, as tests build it to upgrade to it (Go tag
 * ringfence_next): what maps and records hold lies elsewhere.
 */
#ifdef RINGFENCE_NEXT
#define RF_NEXT(member) member
#else
#define RF_NEXT(member)
#endif

enum rf_layout {
#ifdef RINGFENCE_NEXT
	RF_LAYOUT = 4,
#else
	RF_LAYOUT = 3,
#endif
};

#define RF_COMM_LEN 16
#define RF_PATH_LEN 256
#define RF_ARGS_LEN 256
#define RF_PARENTS 8
#define RF_CGROUP_DEPTH 16 /* how far up a task's cgroup is searched for a sandbox */

/* Records per sandbox and ring that are kept in one window; the rest is
 * counted as throttled, so that one sandbox cannot drown the others. */
#define RF_WINDOW_NS 100000000ULL /* 100 ms */
#define RF_WINDOW_DENIALS 1000
#define RF_WINDOW_FLOWS 5000
#define RF_WINDOW_REFUSALS 200
#define RF_WINDOW_PROCESSES 500
/* Records a sandbox may have unread in a ring that is a quarter, half, three
 * quarters full: the fuller it is, the more of the rest is kept for others. */
#define RF_UNREAD_QUARTER 128
#define RF_UNREAD_HALF 32
#define RF_UNREAD_MOST 8
#define RF_WINDOW_WAKEUPS 8 /* denials that wake the reader at once; later ones wait for its tick */

/* Where a verdict was given. */
enum rf_hook {
	RF_HOOK_NONE,
	RF_HOOK_CONNECT4,
	RF_HOOK_CONNECT6,
	RF_HOOK_SENDMSG4,
	RF_HOOK_SENDMSG6,
	RF_HOOK_SOCK_CREATE,
	RF_HOOK_EGRESS,
	RF_HOOK_CONNECT_UNIX,
	RF_HOOK_SENDMSG_UNIX,
	RF_HOOK_LSM_SOCKET, /* from here on the guard: hooks of the security modules */
	RF_HOOK_LSM_CONNECT,
	RF_HOOK_LSM_SENDMSG,
	RF_HOOK_LSM_ENTRY,
	RF_HOOK_LSM_EXEC,
	RF_HOOK_LSM_USERNS,
	RF_HOOK_LSM_URING,
	RF_HOOK_MAX, /* a row of `calls` has 16 bits for hooks */
};

/* Zero is a denial. */
enum rf_verdict_kind {
	RF_DENY,
	RF_ALLOW,
	RF_VERDICT_MAX,
};

/* Why. Zero goes with the zero verdict: nothing is known about this cgroup. */
enum rf_reason {
	RF_NO_STATE,    /* deny: no sandbox state was written for the cgroup */
	RF_NO_RULE,     /* deny: no entry for address, port and protocol */
	RF_RULE,        /* allow or deny: an entry of the tables; `rule` names it */
	RF_LOOPBACK,    /* allow: the sandbox's own loopback */
	RF_DNS,         /* allow: port 53, answered by the gateway's resolver */
	RF_SOCKET,      /* allow: an ordinary TCP or UDP socket */
	RF_RAW,         /* deny: raw socket */
	RF_PROTOCOL,    /* deny: neither TCP nor UDP */
	RF_MPTCP,       /* deny: multipath TCP; clients fall back to TCP */
	RF_FAMILY,      /* deny: not IPv4, IPv6 */
	RF_UNIX,        /* allow or deny: unix sockets, all or nothing */
	RF_FRAGMENT,    /* deny: IP fragment made by the sender */
	RF_OPTIONS,     /* deny: IP options, routing or extension headers */
	RF_SHORT,       /* deny: header not readable */
	RF_UNSPECIFIED, /* deny: 0.0.0.0 behind a NAT64 or 6to4 prefix */
	RF_ESTABLISHED, /* allow: a TCP flow whose SYN was judged, or that was accepted (gateway) */
	RF_ELSEWHERE,   /* deny: in the keeper's network namespace, which no sandbox shares */
	RF_NO_LISTENER, /* deny: the gateway has no listener in the socket's network namespace (adopted) */
	RF_PAST_HOOKS,  /* deny: a packet of a flow that no hook sent to the gateway (adopted) */
	RF_NO_RELAY,    /* deny: UDP other than DNS is not carried here (adopted) */
	RF_ENTRY,       /* deny: a new file of this name makes tools outside run programs */
	RF_PRIVILEGE,   /* deny: a program would start without no_new_privs */
	RF_NAMESPACE,   /* deny: a new user namespace */
	RF_URING,       /* deny: io_uring */
	RF_BOUND,       /* deny: bound to an address or device from which no way leads to the gateway (adopted) */
	RF_TOO_MANY,    /* deny: one UDP socket sends to more destinations than can be told apart (adopted) */
	RF_REASON_MAX,
};

/* What an IPv6 address turned out to hide. */
enum rf_form {
	RF_FORM_NATIVE,
	RF_FORM_MAPPED, /* ::ffff:0:0/96 */
	RF_FORM_NAT64,  /* 64:ff9b::/96, RFC 6052 */
	RF_FORM_6TO4,   /* 2002::/16, RFC 3056 */
};

enum rf_record_type {
	RF_RECORD_NONE,
	RF_RECORD_VERDICT,
	RF_RECORD_EXEC,
	RF_RECORD_EXIT,
	RF_RECORD_REFUSAL,
	RF_RECORD_GUARD,
};

enum rf_ring {
	RF_RING_DENIALS,
	RF_RING_FLOWS,
	RF_RING_REFUSALS, /* system calls that failed: a flood of them must not hide network denials */
	RF_RING_PROCESSES, /* programs that start and end: nor must a flood of processes */
	RF_RING_MAX,
};

/* What became of a record: produced = sum over all outcomes. */
enum rf_outcome {
	RF_KEPT,      /* submitted to the ring */
	RF_FULL,      /* lost: no room in the ring */
	RF_THROTTLED, /* lost: over the sandbox's share of the window */
	RF_OUTCOME_MAX,
};

enum rf_flag {
	RF_FLAG_UNIX = 1,
	RF_FLAG_LOOPBACK = 2,
	RF_FLAG_DNS = 4,
	RF_FLAG_GATEWAY = 8,
	RF_FLAG_DIRECT = 16, /* adopted: what a CIDR rule allows goes its own way, past the gateway */
	RF_FLAG_INBOUND = 32, /* adopted: TCP connections that others begin are answered */
};

/*
 * Who a cgroup is. Lives in the cgroup storage of the cgroup the programs are
 * attached to, so that identity follows the attachment and never `current`.
 * All zero, the kernel's initial value, denies everything.
 */
struct rf_state {
	RF_NEXT(__u32 next[2];)
	__u32 sandbox;
	__u32 policy;
	__u32 generation;
	__u32 flags;
};

/* Virtual addresses: exact. Port 0 stands for every port. */
struct rf_name_key {
	RF_NEXT(__u32 next;)
	__u32 policy;
	__u8 addr[4];
	__u16 port; /* host order */
	__u8 proto;
	__u8 pad;
};

struct rf_name_value {
	RF_NEXT(__u32 next;)
	__u32 rule;
};

/* A rule of a policy, as its entries name it. Never rule 0, which is none. */
struct rf_hit_key {
	__u32 policy;
	__u32 rule;
};

/*
 * CIDRs: longest prefix. IPv4 is written as ::ffff:a.b.c.d. prefixlen counts
 * from `policy` on: 64 bits of policy, protocol and port, then the address.
 */
struct rf_cidr_key {
	__u32 prefixlen;
	__u32 policy;
	__u8 proto;
	__u8 pad;
	__u16 port; /* host order; 0 is the group of every port no other group names */
	__u8 addr[16];
};

#define RF_CIDR_HEAD_BITS 64

struct rf_cidr_value {
	RF_NEXT(__u32 next;)
	__u32 rule;
	__u8 allow; /* RF_DENY or RF_ALLOW */
	__u8 pad[3];
};

/*
 * Redirection, in network namespaces that are not ours: what a socket asked
 * for before a hook sent it to one of the gateway's listeners. Kept with the
 * socket, and with the connection that the gateway accepts for it. The gateway
 * reads it as it stands, with getsockopt(RF_SOL, RF_SO_ASKED).
 */
struct rf_asked {
	__u8 addr[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u64 asker;   /* low half of the socket's cookie, and above it the tag of the process that asked, 0: not known */
	__u32 sandbox;
	__u16 port;    /* host order; both 0: it asked for nothing, it was accepted (RF_FLAG_INBOUND) */
	__u16 to_port; /* of the listener, host order */
};

/* A level of its own: a kernel without our program knows no such option. */
enum rf_sockopt {
	RF_SOL = 0x5246,
	RF_SO_ASKED = 1, /* struct rf_asked of a connection that the gateway accepted */
	RF_SO_FENCE = 2, /* __u32: the sandbox whose programs the socket meets */
	RF_SO_RELAYED = 1 << 30, /* with the rest of a number: struct rf_asked of what that stands for */
};

#define RF_RELAYS 16 /* destinations that one UDP socket can have at a time */
#define RF_RELAY_IDLE_NS 120000000000ULL /* 2 min: then another may have its place */

/*
 * A destination of a UDP socket that is sent to the gateway, as its datagrams
 * carry it: the port of the listener stands for it with this socket, in both
 * directions, and the number with all. A number is drawn by lot and has bit 30
 * (RF_SO_RELAYED) and none above it.
 */
struct rf_relay {
	struct rf_asked asked;
	__u64 used_ns; /* CLOCK_MONOTONIC; of the last datagram */
	__u32 number;  /* 0: the place is free */
	__u32 taken;   /* the gateway knows what it is for: answers may come */
};

/* Those of one socket, and kept with it. */
struct rf_relays {
	__u32 sandbox;
	__u32 connected; /* 1 + which of them the socket is connected to, 0: none */
	__u32 chosen;    /* for the hook's own use, see rf_relay_to */
	__u32 pad;
	struct rf_relay to[RF_RELAYS];
};

struct rf_redirect_key {
	__u64 netns; /* cookie of the network namespace */
	__u32 sandbox;
	__u32 pad;
};

/* The gateway's listeners on the loopback of one namespace; port 0: none. */
struct rf_redirect {
	__u16 tcp4, tcp6;
	__u16 dns_tcp4, dns_tcp6;
	__u16 dns_udp4, dns_udp6;
	__u16 udp4[RF_RELAYS], udp6[RF_RELAYS];
	__u32 pad;
};

/* A redirected TCP flow until the gateway's end of it exists. */
struct rf_flying_key {
	__u64 netns;
	__u8 addr[16]; /* source; IPv4 as ::ffff:a.b.c.d */
	__u16 port;    /* source, host order */
	__u16 to_port; /* host order */
	__u32 pad;
};

/* What became of one sandbox's records of one ring; never set back. */
struct rf_bucket {
	__u64 window_ns;
	__u64 count; /* in this window */
	__u64 outcomes[RF_OUTCOME_MAX];
};

/* How far the keeper has read a sandbox's records of a ring: its last nth. */
struct rf_read_key {
	__u32 sandbox;
	__u32 ring;
};

struct rf_rate {
	struct rf_bucket ring[RF_RING_MAX];
};

/* Every record begins with this. */
struct rf_head {
	RF_NEXT(__u64 next;)
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u32 sandbox; /* 0: the cgroup has no state */
	__u32 pid;     /* thread group id in the host's namespace; 0 in egress */
	__u8 type;     /* enum rf_record_type */
	__u8 hook;
	__u8 verdict;
	__u8 reason;
	__u32 generation;
	__u64 nth; /* of the sandbox's records in this ring, about: see rf_take */
};

struct rf_parent {
	__u32 pid;
	__u8 comm[RF_COMM_LEN];
};

/* The process a record is about, beside head.pid. All zero where `current` is
 * arbitrary. */
struct rf_origin {
	__u64 start_ns; /* CLOCK_BOOTTIME; with the pid it names a process for good */
	__u32 uid;
	__u32 pad;
	__u8 comm[RF_COMM_LEN];
	struct rf_parent parents[RF_PARENTS]; /* nearest first; pid 0 ends */
};

struct rf_verdict {
	struct rf_head head;
	struct rf_origin origin;
	__u64 cookie; /* of the socket; 0 in sock_create and the unix hooks */
	__u32 policy;
	__u32 rule;
	__u32 error; /* errno the caller got; 0 when allowed */
	__u16 family;
	__u16 proto; /* MPTCP is 262 */
	__u16 port;  /* host order */
	__u8 sock_type;
	__u8 form;     /* enum rf_form */
	__u8 addr[16]; /* as asked for; IPv4 as ::ffff:a.b.c.d */
	__u8 pad[4];
};

/* What a process last executed. */
struct rf_program {
	__u64 start_ns; /* of the process, see rf_origin */
	__u16 filename_len; /* without NUL; RF_PATH_LEN - 1 may mean cut */
	__u16 args_len;     /* bytes kept */
	__u32 args_total;   /* bytes there were */
	__u8 filename[RF_PATH_LEN];
	__u8 args[RF_ARGS_LEN]; /* NUL-separated */
};

struct rf_exec {
	struct rf_head head;
	struct rf_origin origin;
	__u32 gid;
	__u32 pad;
	struct rf_program program;
};

/* What a system call names, in one of its arguments. */
enum rf_subject {
	RF_SUBJECT_NONE,
	RF_SUBJECT_PATH,     /* a NUL-terminated string */
	RF_SUBJECT_SOCKADDR, /* a struct sockaddr; the next argument is its length */
	RF_SUBJECT_CLONE,    /* a struct clone_args: only calls that ask for a namespace count */
};

#define RF_CALLS 512 /* system call numbers that have a row of their own */
#define RF_ERRNOS 192
#define RF_SUBJECT_LEN 256
#define RF_SOCKADDR_LEN 128 /* sizeof(struct sockaddr_storage) */
#define RF_WATCH_LEN 64 /* bytes of a path that are compared with the watched ones */

/* When the failure of a system call is a refusal worth a record. All zero: never. */
struct rf_call_row {
	__u64 errnos[RF_ERRNOS / 64]; /* bit n: errno n */
	__u64 watched[RF_ERRNOS / 64]; /* the same, only if the path it names is watched */
	__u8 subject; /* enum rf_subject */
	__u8 arg;     /* argument that holds the subject, 0..5 */
	__u16 hooks;  /* bit n: enum rf_hook n judges this call too, and has its own record of what it refuses */
	__u8 pad[4];
};

/* Longest prefix of a path. prefixlen counts bits from `sandbox` on. Sandbox 0
 * holds what goes for all; what a sandbox has of its own wins. */
struct rf_watch_key {
	__u32 prefixlen;
	__u32 sandbox;
	__u8 path[RF_WATCH_LEN];
};

/* A system call that failed with an errno of its row. */
struct rf_refusal {
	struct rf_head head;
	struct rf_origin origin;
	__u64 args[6]; /* the registers */
	__u32 call;    /* system call number */
	__u32 error;   /* errno, positive */
	__u16 subject_len; /* bytes kept of the subject, without NUL */
	__u8 subject; /* enum rf_subject */
	__u8 pad[5];
	__u8 what[RF_SUBJECT_LEN]; /* the subject, read after the call: a hint, the caller may have changed it */
};

/*
 * What the guard holds the processes of a sandbox to. It is written when the
 * walls of the sandbox stand: whoever builds them is its first process. Without
 * an entry the guard lets pass, the hooks of the cgroup do not.
 */
struct rf_guard {
	__u32 policy;
	__u32 generation;
	__u32 flags; /* enum rf_flag */
	__u32 dev;   /* file system in which new entries are judged, major << 20 | minor; 0: none */
};

#define RF_ENTRY_LEN 64

/* Ways to make a directory entry. */
enum rf_entry_way {
	RF_WAY_CREATE = 1, /* a file, a device, a FIFO, a socket */
	RF_WAY_MKDIR = 2,
	RF_WAY_SYMLINK = 4,
	RF_WAY_LINK = 8,
	RF_WAY_RENAME = 16,
};

/* A name below a directory of a name, at any depth. The value is a set of ways
 * that are refused. */
struct rf_entry_key {
	__u32 sandbox;
	__u8 parent[RF_ENTRY_LEN]; /* all zero: any */
	__u8 name[RF_ENTRY_LEN];
};

/* What the guard refused other than sockets. */
struct rf_guarded {
	struct rf_head head;
	struct rf_origin origin;
	__u32 error; /* errno the caller got */
	__u32 way;   /* enum rf_entry_way, of an entry */
	__u8 parent[RF_ENTRY_LEN]; /* name of the directory, of an entry */
	__u8 name[RF_ENTRY_LEN];   /* of the entry, or of the program's file */
};

struct rf_exit {
	struct rf_head head;
	__u32 ppid;
	__u32 uid;
	__u32 code; /* wait status */
	__u32 pad;
	__u64 start_ns; /* CLOCK_BOOTTIME */
	__u8 comm[RF_COMM_LEN];
};

#endif
