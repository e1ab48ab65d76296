// SPDX-License-Identifier: Apache-2.0

package api

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Whoever has a range of uids to map is still one person: numbers that no account
// has are refused where they come out of a user namespace, and only there.
func TestANumberOfAUserNamespaceIsNobody(t *testing.T) {
	const account = 65534 // nobody
	number := uint32(54321)
	for ; ; number++ { // one that no account has
		if _, err := user.LookupId(strconv.FormatUint(uint64(number), 10)); err != nil {
			break
		}
	}
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}}
	if err := cmd.Start(); err != nil {
		t.Fatalf("a user namespace: %v", err)
	}
	defer cmd.Wait()         //nolint:errcheck // killed
	defer cmd.Process.Kill() //nolint:errcheck // likewise
	for _, c := range []struct {
		name string
		c    Caller
		want string
	}{
		{"root", Caller{UID: 0, PID: cmd.Process.Pid}, ""},
		{"a number, here", Caller{UID: number, PID: os.Getpid()}, ""},
		{"a number, there", Caller{UID: number, PID: cmd.Process.Pid}, "a number of a user namespace"},
		{"an account, there", Caller{UID: account, PID: cmd.Process.Pid}, ""},
		{"a number of nowhere", Caller{UID: number, PID: 1 << 30}, "a number of a user namespace"},
	} {
		err := c.c.isSomebody()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
