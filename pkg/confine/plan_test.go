// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// planInput is an input that Plan accepts.
func planInput(t *testing.T) confine.PlanInput {
	t.Helper()
	in := input(t, newWorld(t))
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	in.Argv, in.Stdio = []string{"true"}, [3]*os.File{null, null, null}
	return in
}

func TestPlanRefuses(t *testing.T) {
	needRoot(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sock, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	tests := []struct {
		name string
		set  func(*confine.PlanInput)
		text string
	}{
		{"accepted (control)", func(*confine.PlanInput) {}, ""},
		{"no command", func(in *confine.PlanInput) { in.Argv = nil }, "no command"},
		{"host root", func(in *confine.PlanInput) { in.HostUID, in.Identity.UID = 0, 0 }, "uid or gid 0"},
		{"host group root", func(in *confine.PlanInput) { in.HostGID, in.Identity.GID = 0, 0 }, "uid or gid 0"},
		{"user namespace over root", func(in *confine.PlanInput) { in.HostUID, in.Identity = 0, confine.Identity{UserNS: true} }, "uid or gid 0"},
		{"supplementary group root", func(in *confine.PlanInput) { in.Identity.Groups = []uint32{0} }, "group 0"},
		{"no filter", func(in *confine.PlanInput) { in.SeccompFilter = nil }, "filter"},
		{"a socket as stdin", func(in *confine.PlanInput) { in.Stdio[0] = sock }, "stdio 0"},
		{"a terminal as stdout", func(in *confine.PlanInput) { in.Stdio[1] = tty }, "stdio 1"},
		{"a directory as stderr", func(in *confine.PlanInput) { in.Stdio[2] = in.Workspace }, "stdio 2"},
		{"no stdio", func(in *confine.PlanInput) { in.Stdio[0] = nil }, "stdio 0"},
		{"workspace /", func(in *confine.PlanInput) { in.WorkspaceTarget = "/" }, "cannot be a workspace"},
		{"workspace over /usr", func(in *confine.PlanInput) { in.WorkspaceTarget = "/usr" }, "/usr cannot be a workspace: the sandbox has its own"},
		{"workspace in /etc", func(in *confine.PlanInput) { in.WorkspaceTarget = "/etc/x" }, "cannot lie in /etc"},
		{"workspace in /proc", func(in *confine.PlanInput) { in.WorkspaceTarget = "/proc/x" }, "cannot lie in /proc"},
		{"workspace over our home", func(in *confine.PlanInput) { in.WorkspaceTarget = "/home" }, "it holds /home/agent"},
		{"workspace path with dots", func(in *confine.PlanInput) { in.WorkspaceTarget = "/srv/../etc" }, "cannot be a workspace"},
		{"bind outside the workspace", func(in *confine.PlanInput) {
			in.Binds = []confine.Bind{{Source: in.Workspace, Target: "/usr/x"}}
		}, "not inside the workspace"},
		{"missing read path", func(in *confine.PlanInput) { in.Walls.Read = []string{"/no/such/path"} }, "/no/such/path"},
		{"a block device as device", func(in *confine.PlanInput) { in.Walls.Devices = []string{"../etc/passwd"} }, "not a device"},
		{"/proc as a path", func(in *confine.PlanInput) { in.Walls.Write = []string{"/proc/sys"} }, "cannot be granted"},
		{"relative guard", func(in *confine.PlanInput) { in.Walls.Guarded = []string{"x"} }, "not absolute"},
		{"home path without a home", func(in *confine.PlanInput) { in.RealHome, in.Walls.Read = "", []string{"~/x"} }, "no home"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := planInput(t)
			tt.set(&in)
			p, err := confine.Plan(in)
			if err == nil {
				p.Close()
			}
			if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q in it", err, tt.text)
			}
		})
	}
}

// TestCallerRights: the keeper opens a profile's paths as the caller.
func TestCallerRights(t *testing.T) {
	needRoot(t)
	in := planInput(t)
	secret := filepath.Join(in.RealHome, "private")
	if err := os.MkdirAll(filepath.Join(secret, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o700); err != nil {
		t.Fatal(err)
	}
	in.Walls.Read = []string{filepath.Join(secret, "inner")}
	p, err := confine.Plan(in)
	if err != nil {
		t.Fatalf("root itself (control): %v", err)
	}
	p.Close()
	in.Identity = confine.Identity{UID: 1000, GID: 1000}
	in.HostUID, in.HostGID, in.Caller = 1000, 1000, &confine.Credential{UID: 1000, GID: 1000}
	if p, err := confine.Plan(in); !errors.Is(err, os.ErrPermission) {
		if err == nil {
			p.Close()
		}
		t.Errorf("an unprivileged caller was lent root's rights: %v", err)
	}
}

// TestNoIdmap: a file system without idmapped mounts is refused by name.
func TestNoIdmap(t *testing.T) {
	needRoot(t)
	in := planInput(t)
	dir, err := os.OpenFile("/proc/self/task", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	in.Workspace = dir
	p, err := confine.Plan(in)
	if err == nil {
		p.Close()
	}
	if !errors.Is(err, confine.ErrNoIdmap) || !strings.Contains(err.Error(), "on proc:") {
		t.Errorf("got %v", err)
	}
}

func TestSealedBinary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := confine.InitBinary(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "program" {
		t.Errorf("content %q, %v", b, err)
	}
	if _, err := f.WriteAt([]byte("P"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to the sealed binary: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate the sealed binary: %v", err)
	}
	if fi, err := f.Stat(); err != nil || fi.Mode().Perm() != 0o111 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestEnvironment(t *testing.T) {
	env := confine.Environment(confine.PlanInput{
		Identity: confine.Identity{UID: 7}, CABundle: [][]byte{[]byte("x")}, CACert: []byte("y"),
		Env: []string{"HOME=/root", "SSL_CERT_FILE=/mine", "PATH=/p", "A=1", "A=2", "broken", "=x", "N=\x00"},
	})
	for _, want := range []string{
		"HOME=" + confine.Home, "SSL_CERT_FILE=" + confine.BundleFile, "NODE_EXTRA_CA_CERTS=" + confine.CAFile, "PATH=/p", "A=1",
		"DENO_CERT=" + confine.BundleFile, "USER=agent",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("no %s in %q", want, env)
		}
	}
	for _, kv := range env {
		if kv == "A=2" || kv == "broken" || kv == "=x" || strings.ContainsRune(kv, 0) || kv == "HOME=/root" {
			t.Errorf("%q was passed", kv)
		}
	}
}

// TestSystemDirectoriesAreTheCallersToo: a profile's list is no way around.
func TestSystemDirectoriesAreTheCallersToo(t *testing.T) {
	needRoot(t)
	in := planInput(t)
	closed := filepath.Join(in.RealHome, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	in.Walls.System = append(confine.DefaultSystem(), closed)
	shows := func() bool {
		p, err := confine.Plan(in)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		return slices.ContainsFunc(p.Spec.Mounts, func(m confine.Mount) bool { return m.Target == closed })
	}
	if !shows() {
		t.Error("root itself (control) does not see the directory")
	}
	in.Identity = confine.Identity{UID: 1000, GID: 1000}
	in.HostUID, in.HostGID, in.Caller = 1000, 1000, &confine.Credential{UID: 1000, GID: 1000}
	if shows() {
		t.Error("an unprivileged caller sees root's directory")
	}
}

func TestVarOfTheHost(t *testing.T) {
	needRoot(t)
	in := input(t, newWorld(t))
	in.Walls.Read = []string{"/var"}
	out, code := sh(t, in, `test -d /var/lib/dpkg || test -d /var/lib; touch /var/tmp/x && echo private; touch /var/x || echo read-only`)
	if code != 0 || !strings.Contains(out, "private") || !strings.Contains(out, "read-only") {
		t.Errorf("status %d:\n%s", code, out)
	}
}
