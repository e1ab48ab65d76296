// SPDX-License-Identifier: Apache-2.0

// Package workspace protects a directory that an agent may write.
//
// Before a run, [Survey] walks it once: it returns what is there that could
// make a program on the host run something (a [Baseline]), and the paths that
// must be bound inside the sandbox so that hooks of existing repositories
// cannot be replaced while it runs ([Guard]). After the run, when every
// process of the sandbox is dead, [HandBack] walks it again: set-id bits and
// file capabilities are removed, and hooks, git settings that run programs and
// git pointers that lead out of the workspace are quarantined if they were not
// there before. The user's own earlier settings are never touched.
//
// The tree is hostile: names are any bytes, files may be FIFOs, devices,
// symlinks or hard links, directories may be deeper than PATH_MAX. Every step
// opens one name relative to a descriptor with RESOLVE_BENEATH,
// RESOLVE_NO_SYMLINKS and RESOLVE_NO_XDEV (Linux 5.6); nothing is opened for
// reading before it is known to be a regular file, and never blocking. Other
// file systems mounted below the root are not entered: the sandbox was given a
// clone of the root's mount alone.
//
// What it does not cover: programs of the workspace that the user's own
// earlier settings name (a filter that calls ./scripts/fmt), and files that
// other tools run (Makefile, package.json, editor tasks).
package workspace
