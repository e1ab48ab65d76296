// SPDX-License-Identifier: Apache-2.0

// Package landlock reads the denials that the kernel's Landlock reports through
// the audit subsystem (Linux 6.15 and later): record types LANDLOCK_ACCESS
// (1423) and LANDLOCK_DOMAIN (1424).
//
// The work is split by power. [OpenSocket] needs CAP_AUDIT_READ (and
// CAP_AUDIT_CONTROL to switch audit on) in the host's own namespaces and reads
// nothing that a sandbox can shape. [NewReader] parses records, whose paths and
// names a sandbox chooses, and needs nothing but the descriptor: it belongs in
// a process without privileges. The socket cannot be used by such a process to
// change the audit state: the kernel checks the sender too.
//
// Switching audit on is a change of the host that operators may see: without an
// auditd the kernel also prints the records of Landlock (and of everything else
// that logs to audit) to its own log, at a limited rate. So it happens only when
// asked for, and the restore function puts back what was there. A domain reports
// denials of a program that a confined process executes only when it was
// created with LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON.
package landlock
