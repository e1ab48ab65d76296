// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// start runs spec's command as p in a session of its own, with three
// descriptors and no others. On failure it returns the exit status to report:
// 127 not found, 126 not executable, 125 for anything before that.
func (g *guard) start(p *process, spec *confine.Spec, files map[int]*os.File) (int32, error) {
	if len(spec.Argv) == 0 {
		return exitSetup, errors.New("no command")
	}
	var st unix.Stat_t
	if err := unix.Stat(spec.Dir, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return exitSetup, fmt.Errorf("working directory %s does not exist in the sandbox: %w", spec.Dir, errors.Join(err, nil))
	}
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	var master *os.File
	if spec.TTY {
		m, slave, err := openPty(spec.Rows, spec.Cols)
		if err != nil {
			return exitSetup, err
		}
		defer m.Close()
		defer slave.Close()
		if p.status == nil {
			return exitSetup, errors.New("a terminal was asked for, but there is nobody to hold it")
		}
		master = m
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
		attr.Sys.Setctty = true
	} else {
		for _, n := range spec.StdioFDs {
			f := files[n]
			if f == nil {
				return exitSetup, fmt.Errorf("no descriptor %d for stdio", n)
			}
			attr.Files = append(attr.Files, f.Fd())
		}
	}
	file, code, err := find(spec)
	if err != nil {
		return code, err
	}
	if master != nil {
		g.send(p.status, confine.Frame{Type: confine.FramePtyMaster, Seq: p.seq}, master)
	}
	pid, err := syscall.ForkExec(file, spec.Argv, attr)
	if err != nil {
		return execError(file, err)
	}
	// ESRCH: it has ended already.
	if err := limitChild(pid, g.spec.Rlimits); err != nil && !errors.Is(err, unix.ESRCH) {
		_ = unix.Kill(pid, unix.SIGKILL)
		return exitSetup, err
	}
	p.pid = pid
	g.procs[pid] = p
	f := confine.Frame{Type: confine.FrameStarted, Seq: p.seq, Pid: int32(pid)}
	g.send(p.status, f, nil)
	g.send(g.keeper, f, nil)
	if p.status != nil {
		go g.read(p.status, p)
	}
	return 0, nil
}

func execError(file string, err error) (int32, error) {
	if errors.Is(err, unix.ENOENT) {
		return 127, fmt.Errorf("%s: its interpreter was not found in the sandbox: %w", file, err)
	}
	return 126, fmt.Errorf("%s: cannot be executed in the sandbox: %w", file, err)
}

// find looks the command up as a shell would, inside the walls.
func find(spec *confine.Spec) (string, int32, error) {
	name := spec.Argv[0]
	if strings.Contains(name, "/") {
		full := name
		if !path.IsAbs(full) {
			full = path.Join(spec.Dir, name)
		}
		code, err := executable(full)
		return full, code, err
	}
	search := ""
	for _, kv := range spec.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = v
		}
	}
	var first error
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "."
		}
		full := path.Join(dir, name)
		if !path.IsAbs(full) {
			full = path.Join(spec.Dir, full)
		}
		code, err := executable(full)
		if err == nil {
			return full, 0, nil
		}
		if code == 126 && first == nil {
			first = err
		}
	}
	if first != nil {
		return "", 126, first
	}
	return "", 127, fmt.Errorf("%s: command not found in the sandbox (PATH=%s): %w", name, search, unix.ENOENT)
}

func executable(full string) (int32, error) {
	var st unix.Stat_t
	if err := unix.Stat(full, &st); err != nil {
		if errors.Is(err, unix.EACCES) {
			return 126, fmt.Errorf("%s: %w", full, err)
		}
		return 127, fmt.Errorf("%s: not found in the sandbox: %w", full, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 126, fmt.Errorf("%s: not a regular file: %w", full, unix.EACCES)
	}
	if err := unix.Access(full, unix.X_OK); err != nil {
		return 126, fmt.Errorf("%s: not executable: %w", full, err)
	}
	return 0, nil
}

// openPty makes a terminal in the sandbox's own devpts.
func openPty(rows, cols uint16) (master, slave *os.File, err error) {
	m, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("allocate a terminal: %w", err)
	}
	master = os.NewFile(uintptr(m), "ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(m, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, fmt.Errorf("number of the terminal: %w", err)
	}
	s, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open the terminal: %w", err)
	}
	slave = os.NewFile(uintptr(s), "pts")
	if rows > 0 && cols > 0 {
		if err := unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			slave.Close()
			return nil, nil, fmt.Errorf("size of the terminal: %w", err)
		}
	}
	return master, slave, nil
}
