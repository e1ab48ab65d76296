// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/confine/self"
)

// placement is how much of a sandbox a process is put into. The zero value is
// none of it. Nothing of the product knows of this: the process is root of the
// host, joins what exists and closes itself in with the code of ringfence-init.
type placement struct {
	Network string // path of a network namespace to join
	View    string // directory of /proc/PID/ns: its mount and process namespaces
	Shared  string // path of an IPC namespace

	UID, GID uint32 // who it is, with the rights of an ordinary program
	Rights   bool   // with those of an agent

	Landlock []confine.LandlockRule
	Filter   string // file with a system call filter

	Dir  string
	Argv []string
	Env  []string

	inView bool
}

const placedEnv, innerEnv = "RINGFENCE_ESCAPES_PLACED", "RINGFENCE_ESCAPES_INNER"

// TestMain is also the program that places itself.
func TestMain(m *testing.M) {
	text := os.Getenv(placedEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread() // what is given up is given up on this thread; the others end with the exec
	p := placement{inView: os.Getenv(innerEnv) != ""}
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = p.run()
	}
	fmt.Fprintln(os.Stderr, "placing:", err)
	os.Exit(125)
}

// command prepares a process that is placed and then runs Argv.
func (p *placement) command() (*exec.Cmd, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = []string{placedEnv + "=" + string(text), "GOMAXPROCS=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	return cmd, nil
}

// run returns only when it failed.
func (p *placement) run() error {
	if p.View != "" && !p.inView {
		return p.born()
	}
	for path, kind := range map[string]int{p.Network: unix.CLONE_NEWNET, p.Shared: unix.CLONE_NEWIPC} {
		if err := join(path, kind); err != nil {
			return err
		}
	}
	filter := -1
	if p.Filter != "" {
		var err error
		if filter, err = unix.Open(p.Filter, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("filter: %w", err)
		}
	}
	if p.View != "" {
		// A mount namespace is not joined by one who shares its root with others.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("own root: %w", err)
		}
		if err := join(p.View+"/mnt", unix.CLONE_NEWNS); err != nil {
			return err
		}
	}
	if p.View == "" { // the host's, but what root mounts stays here
		if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "")); err != nil {
			return fmt.Errorf("own mounts: %w", err)
		}
	}
	if err := unix.Chdir(p.Dir); err != nil {
		return fmt.Errorf("%s: %w", p.Dir, err)
	}
	if err := p.close(filter); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", p.Argv[0], syscall.Exec(p.Argv[0], p.Argv, p.Env))
}

// born starts the same again as a child in the other process namespace: nobody
// joins one himself.
func (p *placement) born() error {
	if err := join(p.View+"/pid", unix.CLONE_NEWPID); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), innerEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run() // ends with its input, should we be killed
	var ended *exec.ExitError
	if err == nil || errors.As(err, &ended) {
		os.Exit(cmd.ProcessState.ExitCode())
	}
	return err
}

// close gives up what is to be given up, in the order of ringfence-init.
func (p *placement) close(filter int) error {
	switch {
	case p.Rights:
		if err := self.BecomeAgent(confine.Identity{UID: p.UID, GID: p.GID}); err != nil {
			return err
		}
		if err := self.DropCapabilities(); err != nil {
			return err
		}
	case p.UID != 0:
		if err := become(p.UID, p.GID); err != nil {
			return err
		}
	}
	if p.Rights || p.UID != 0 && (p.Landlock != nil || filter >= 0) { // root needs it for neither
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	if p.Landlock != nil {
		if err := self.RestrictFiles(confine.Landlock{Rules: p.Landlock}); err != nil {
			return err
		}
	}
	if filter < 0 {
		return nil
	}
	return self.LoadFilter(filter)
}

func join(path string, kind int) error {
	if path == "" {
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, kind); err != nil {
		return fmt.Errorf("join %s: %w", path, err)
	}
	return nil
}

// become changes the identity of this thread as a log-in does.
func become(uid, gid uint32) error {
	for _, c := range []struct {
		what string
		nr   uintptr
		args [3]uintptr
	}{
		{"groups", unix.SYS_SETGROUPS, [3]uintptr{}},
		{"gid", unix.SYS_SETRESGID, [3]uintptr{uintptr(gid), uintptr(gid), uintptr(gid)}},
		{"uid", unix.SYS_SETRESUID, [3]uintptr{uintptr(uid), uintptr(uid), uintptr(uid)}},
	} {
		if _, _, e := unix.RawSyscall(c.nr, c.args[0], c.args[1], c.args[2]); e != 0 {
			return fmt.Errorf("set %s: %w", c.what, e)
		}
	}
	return nil
}
