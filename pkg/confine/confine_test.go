// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/confine"
)

// modes are the three ways a sandbox is launched.
var modes = []struct {
	name string
	set  func(*confine.PlanInput)
}{
	{"root-launched", func(*confine.PlanInput) {}},
	{"root-inside", func(in *confine.PlanInput) { in.Identity = confine.Identity{UserNS: true} }},
	{"user-launched", func(in *confine.PlanInput) {
		in.Identity = confine.Identity{UID: 1000, GID: 1000}
		in.HostUID, in.HostGID = 1000, 1000
		in.Caller = &confine.Credential{UID: 1000, GID: 1000}
	}},
}

// outside runs a probe without a sandbox: the control.
func outside(t *testing.T, name, arg string) string {
	t.Helper()
	cmd := exec.Command(probePath, arg)
	cmd.Env = []string{"CONFINE_PROBE=" + name, "GORACE=atexit_sleep_ms=0"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("control: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func inside(t *testing.T, in confine.PlanInput, name, arg string) string {
	t.Helper()
	in.Env = append(slices.Clone(in.Env), "CONFINE_PROBE="+name, "GORACE=atexit_sleep_ms=0")
	out, code := launch(t, in, probePath, arg).result()
	if code != 0 {
		t.Fatalf("probe %s %s ended with %d: %s", name, arg, code, out)
	}
	return out
}

func TestAttemptsAreRefused(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	sock := filepath.Join(w.dir, "host.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	attempts := []struct{ name, probe, arg, inside string }{
		{"read the SSH key of the real home", "read", w.key, "EACCES"},
		{"read the password hashes", "read", "/etc/shadow", "EACCES"},
		{"write next to the workspace", "write", filepath.Join(w.dir, "new"), "EACCES EROFS"},
		{"change a system file", "rdwr", "/etc/hostname", "EACCES EROFS"},
		{"change a program", "rdwr", "/usr/bin/env", "EACCES EROFS"},
		{"change a kernel setting", "rdwr", "/proc/sys/kernel/core_pattern", "EACCES EROFS"},
		{"trigger the kernel's magic keys", "rdwr", "/proc/sysrq-trigger", "EACCES EROFS ENOENT"},
		{"connect to a socket of the host", "connect", sock, "ENOENT"},
	}
	for _, a := range attempts {
		if got := outside(t, a.probe, a.arg); got != "ok" && !(a.arg == "/proc/sysrq-trigger") {
			t.Errorf("%s: the control got %s outside", a.name, got)
		}
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			for _, a := range attempts {
				in := input(t, w)
				mode.set(&in)
				if got := inside(t, in, a.probe, a.arg); !slices.Contains(strings.Fields(a.inside), got) {
					t.Errorf("%s: got %s, want one of %s", a.name, got, a.inside)
				}
			}
		})
	}
	if b, err := os.ReadFile(w.key); err != nil || string(b) != "REAL KEY\n" {
		t.Errorf("the real key is now %q, %v", b, err)
	}
}

func TestGuardedPathsAreDecoys(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	// Readable by everyone on the host, so that only the walls can refuse it.
	in := input(t, w)
	in.Walls.Guarded = []string{"~/.ssh/id_rsa", "/etc/issue", "/etc/ssl", "/etc/ssl/certs", "/usr/bin/true", "/run/docker.sock", "/var/run/docker.sock", "/usr/share/common-licenses"}
	out, _ := sh(t, in, `
		cat ~/.ssh/id_rsa; for f in `+w.key+` /etc/issue /usr/bin/true /run/docker.sock /var/run/docker.sock; do
			stat -L -c '%n %s %a' $f; cat $f && echo READ $f; done
		ls /usr/share/common-licenses; ls /etc/ssl; cat /etc/debian_version >/dev/null && echo sibling readable
		cat /usr/bin/env > /dev/null && echo program readable; mkdir ~/.ssh && echo mine > ~/.ssh/id_rsa && cat ~/.ssh/id_rsa`)
	for _, want := range []string{"/etc/issue 0 444", "/usr/bin/true 0 444", w.key + " 0 444", "/run/docker.sock 0 444", "sibling readable", "program readable", "id_rsa: No such file", "mine"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "READ ") || strings.Contains(out, "REAL KEY") || strings.Contains(out, "GPL") || strings.Contains(out, "openssl.cnf") {
		t.Errorf("a guarded path was readable:\n%s", out)
	}
}

func TestGuardedPathInsideTheWorkspace(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	if err := os.MkdirAll(filepath.Join(w.workspace, ".aws"), 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(w.workspace, ".aws/credentials")
	if err := os.WriteFile(secret, []byte("SECRET"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(secret, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	// As people keep them who version their dotfiles.
	linked := filepath.Join(w.workspace, "dotfiles", "netrc")
	if err := errors.Join(os.Mkdir(filepath.Dir(linked), 0o755), os.WriteFile(linked, []byte("SECRET"), 0o644), os.Chown(linked, 1000, 1000),
		os.Symlink("dotfiles/netrc", filepath.Join(w.workspace, ".netrc")), os.Symlink("/usr/bin", filepath.Join(w.workspace, ".pgpass"))); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * len(modes) {
		mode, own := modes[i/2], i%2 == 0
		t.Run(fmt.Sprintf("%s/own=%v", mode.name, own), func(t *testing.T) {
			in := input(t, w)
			mode.set(&in)
			if own {
				in.RealHome = w.workspace // ringfence run --workspace ~
			} else {
				in.Homes = []string{"/nonexistent", w.workspace} // of somebody else
			}
			out, _ := sh(t, in, `cat .aws/credentials; chmod 666 .aws/credentials; echo x > .aws/credentials; rm -f .aws/credentials; cat .aws/credentials; cat .netrc dotfiles/netrc; /usr/bin/env true && echo done`)
			if strings.Contains(out, "SECRET") || !strings.Contains(out, "done") {
				t.Errorf("got:\n%s", out)
			}
			if b, err := os.ReadFile(secret); err != nil || string(b) != "SECRET" {
				t.Errorf("on the host the secret is now %q, %v", b, err)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			in := input(t, w)
			mode.set(&in)
			uid := fmt.Sprint(in.Identity.UID)
			out := inside(t, in, "status", "")
			for _, want := range []string{
				"Uid=" + strings.TrimSpace(strings.Repeat(uid+" ", 4)), "CapInh=0000000000000000", "CapPrm=0000000000000000",
				"CapEff=0000000000000000", "CapBnd=0000000000000000", "CapAmb=0000000000000000", "NoNewPrivs=1", "Seccomp=2",
				"SigIgn=0000000000000000", "SigBlk=0000000000000000",
			} {
				if !slices.Contains(strings.Split(out, "\n"), want) {
					t.Errorf("no %s in:\n%s", want, out)
				}
			}
			if got := inside(t, in, "fds", ""); got != "0 1 2" {
				t.Errorf("inherited descriptors: %s", got)
			}
		})
	}
}

func TestHostNeverSeesUID0(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			in := input(t, w)
			mode.set(&in)
			b := launch(t, in, "sleep", "100")
			if m := b.recv(b.status); m.Type != confine.FrameStarted {
				t.Fatalf("got frame %d: %s", m.Type, m.Reason())
			}
			pids := pidsOf(t, b.cgroup)
			if len(pids) != 2 {
				t.Errorf("processes in the cgroup: %v, want init and sleep", pids)
			}
			for _, pid := range pids {
				var st syscall.Stat_t
				if err := syscall.Stat("/proc/"+pid+"/environ", &st); err != nil {
					t.Fatal(err)
				}
				status, err := os.ReadFile("/proc/" + pid + "/status")
				if err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("Uid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d", in.HostUID)
				if !strings.Contains(string(status), want) {
					t.Errorf("process %s is not %s:\n%s", pid, want, status)
				}
				isInit := pid == fmt.Sprint(b.init.Process.Pid)
				if isInit != (st.Uid == 0) {
					t.Errorf("process %s (init: %v): /proc belongs to %d; a dumpable process's would be its own", pid, isInit, st.Uid)
				}
			}
			if err := b.status.Send(confine.Frame{Type: confine.FrameSignal, Status: int32(syscall.SIGTERM)}, nil); err != nil {
				t.Fatal(err)
			}
			if _, code := b.result(); code != 128+15 {
				t.Errorf("status %d after SIGTERM", code)
			}
		})
	}
}

// TestFirstThreadBlocksNoSignal: if it did, for good or in a handler, the agent
// could end init by that signal where Landlock does not keep signals inside (ABI 6, Linux 6.12).
func TestFirstThreadBlocksNoSignal(t *testing.T) {
	needRoot(t)
	b := launch(t, input(t, newWorld(t)), "sleep", "100")
	b.recv(b.status)
	for range 20 {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/status", b.init.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(status), "SigBlk:\t0000000000000000\n") || !strings.Contains(string(status), "SigCgt:\t0000000000000000\n") {
			t.Fatalf("init's first thread:\n%s", status)
		}
	}
}

// TestInitMemory opens init's memory as the same uid on the host.
func TestInitMemory(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	in := input(t, w)
	b := launch(t, in, "sleep", "100")
	b.recv(b.status)
	for _, pid := range pidsOf(t, b.cgroup) {
		cmd := exec.Command(probePath, "/proc/"+pid+"/mem")
		cmd.Env = []string{"CONFINE_PROBE=rdwr", "GORACE=atexit_sleep_ms=0"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: testUID, Gid: testGID}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := "ok" // the agent, as control
		if pid == fmt.Sprint(b.init.Process.Pid) {
			want = "EACCES"
		}
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("open memory of %s: %s, want %s", pid, got, want)
		}
	}
	out := inside(t, in, "rdwr", "/proc/1/mem")
	if out != "EACCES" && out != "ENOENT" && out != "EPERM" {
		t.Errorf("inside, /proc/1/mem: %s", out)
	}
	if out := inside(t, in, "rdwr", "/proc/self/mem"); out != "EACCES" {
		// Landlock grants /proc for reading only; the control is the one above.
		t.Errorf("inside, /proc/self/mem: %s", out)
	}
}

func TestWorkspaceBelongsToItsOwner(t *testing.T) {
	needRoot(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			w := newWorld(t)
			in := input(t, w)
			mode.set(&in)
			out, code := sh(t, in, `mkdir d && echo hello > d/f && stat -c %u d/f && cat d/f && mv d/f g && ln -s g l && mkfifo p`)
			if want := fmt.Sprintf("%d\nhello", in.Identity.UID); code != 0 || out != want {
				t.Fatalf("status %d, output %q, want %q", code, out, want)
			}
			var st syscall.Stat_t
			if err := syscall.Stat(filepath.Join(w.workspace, "g"), &st); err != nil {
				t.Fatal(err)
			}
			if st.Uid != 1000 || st.Gid != 1000 {
				t.Errorf("on the host the file belongs to %d:%d, not to the directory's owner", st.Uid, st.Gid)
			}
		})
	}
}

func TestReadOnlyWorkspaceAndBinds(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	git := filepath.Join(w.workspace, ".git")
	hooks := filepath.Join(git, "hooks")
	if err := os.MkdirAll(hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(git, 1000, 1000); err != nil {
		t.Fatal(err)
	}
	in := input(t, w)
	for _, d := range []struct {
		path string
		ro   bool
	}{{git, false}, {hooks, true}} {
		f, err := os.OpenFile(d.path, syscall.O_DIRECTORY|0o10000000 /* O_PATH */, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		in.Binds = append(in.Binds, confine.Bind{Source: f, Target: d.path, ReadOnly: d.ro})
	}
	out, _ := sh(t, in, `touch .git/index && echo index; touch .git/hooks/pre-commit || echo hook refused; mv .git x || echo rename refused`)
	for _, want := range []string{"index\n", "Read-only file system", "hook refused", "rename refused"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	in = input(t, w)
	in.Walls.Workspace = confine.WorkspaceReadOnly
	if out, _ := sh(t, in, `touch new || echo refused`); !strings.Contains(out, "refused") {
		t.Errorf("wrote to a read-only workspace:\n%s", out)
	}
}

func TestView(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			in := input(t, w)
			mode.set(&in)
			in.Walls.Hostname = "fenced"
			out, code := sh(t, in, `set -e
				test "$(hostname)" = fenced; test "$(cat /etc/hostname)" = fenced
				test "$HOME" = /home/agent; cd; touch .bashrc; mkdir -p .cache/x; for d in /tmp /var/tmp /dev/shm /run /run/user/`+fmt.Sprint(in.Identity.UID)+`; do touch $d/f; done
				test "$(cat /etc/ringfence/ca.pem)" = CA
				test "$(cat /etc/ssl/certs/ca-certificates.crt)" = BUNDLE; test "$(cat $SSL_CERT_FILE)" = BUNDLE; test "$(cat /etc/ssl/cert.pem)" = BUNDLE
				grep -q "^nameserver 127.0.0.53" /etc/resolv.conf; getent hosts localhost >/dev/null
				test "$(id -un)" = "$USER"; cat /sys/class/net/lo/address >/dev/null; head -c4 /dev/urandom >/dev/null; : > /dev/null
				test "$(ls /sys/class/net)" = lo
				test ! -s /proc/kallsyms; test ! -e /root; test ! -e /boot; test ! -e /dev/vda; test ! -e /proc/1/status
				test "$(ls -d /proc/[0-9]* | wc -l)" -le 4
				echo fine`)
			if code != 0 || !strings.HasSuffix(out, "fine") {
				t.Errorf("status %d:\n%s", code, out)
			}
		})
	}
}

func pidsOf(t *testing.T, cgroup string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(cgroup, "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}
