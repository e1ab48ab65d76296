// SPDX-License-Identifier: Apache-2.0

// Package seccomp compiles the system call filter of a sandbox.
//
// The filter is default-allow with a must-block table ([Rules]); what makes
// that safe is the prologue in front of it: a foreign architecture kills the
// process, x32 numbers, numbers above the last one that was reviewed and
// numbers libseccomp cannot name answer ENOSYS, so a system call that a later
// kernel adds is closed until somebody has looked at it. libseccomp's own
// output alone cannot do that: 2.5.4 refuses raw numbers.
//
// Everything is decided from registers. Nothing here reads memory, so nothing
// can be rewritten between the check and the use; calls that hide what matters
// behind a pointer (clone3, openat2) answer ENOSYS and libc falls back to the
// form that can be judged.
//
// Compiling needs cgo and libseccomp; loading does not. The keeper compiles,
// ringfence-init loads the array with the raw seccomp system call.
package seccomp
