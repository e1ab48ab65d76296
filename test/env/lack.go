// SPDX-License-Identifier: Apache-2.0

package env

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Lack skips a test for want of a feature of the kernel or of a program, which
// what names. Where it is there all the same, and always in CI for what CI has
// to have, that fails: there says so.
func Lack(t testing.TB, there bool, what string) {
	t.Helper()
	if there && os.Getenv("RINGFENCE_CI") != "" {
		t.Fatalf("CI has, or must have, %s", what)
	}
	t.Skipf("this machine lacks %s", what)
}

// Linux says whether the running kernel is of that version or a later one.
func Linux(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a > major || a == major && b >= minor
}

// Protocol says whether the kernel has registered a protocol of sockets, by its
// name in /proc/net/protocols.
func Protocol(name string) bool {
	b, err := os.ReadFile("/proc/net/protocols")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == name {
			return true
		}
	}
	return false
}

// BPFLSM says whether the kernel lists bpf among its security modules, where
// securityfs shows them.
func BPFLSM() bool {
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	return err == nil && strings.Contains(","+strings.TrimSpace(string(b))+",", ",bpf,")
}
