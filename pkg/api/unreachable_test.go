// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStartRemedy(t *testing.T) {
	dir, err := os.MkdirTemp("", "rf") // short: unix socket paths have 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	dev := filepath.Join(dir, "s")
	l, err := net.Listen("unix", dev)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test's own
	const start = "make start"
	for _, c := range []struct{ name, socket, env, dev, want string }{
		{"a daemon of a checkout", DefaultSocket, "", dev, "export RINGFENCE_SOCKET=" + dev},
		{"none", DefaultSocket, "", filepath.Join(dir, "none"), start},
		{"a file in its place", DefaultSocket, "", dir, start},
		{"another socket was named", "/elsewhere", "", dev, start},
		{"the environment names one", DefaultSocket, DefaultSocket, dev, start},
	} {
		if got := startRemedy(c.socket, c.env, c.dev); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestMemberRemedy(t *testing.T) {
	if got := memberRemedy("ops", "ann"); !strings.Contains(got, "(usermod -aG ops ann), then log in again") || strings.Contains(got, "groupadd") {
		t.Error(got)
	}
	if got := memberRemedy("", "ann"); !strings.Contains(got, "groupadd --system ringfence") || !strings.Contains(got, "usermod -aG ringfence ann") || !strings.Contains(got, "restart the daemon") {
		t.Error(got)
	}
	file := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for gid, want := range map[int]string{0: "", 64321: "64321"} {
			if err := os.Chown(file, 0, gid); err != nil {
				t.Fatal(err)
			}
			if got := socketGroup(file); got != want {
				t.Errorf("group %d: %q", gid, got)
			}
		}
	}
	if got := socketGroup(file + "-none"); got != "" {
		t.Errorf("no socket: %q", got)
	}
}
