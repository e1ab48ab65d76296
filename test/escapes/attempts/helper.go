// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// helper is what children of attempts do.
func helper(args []string) {
	if len(args) == 0 {
		os.Exit(2)
	}
	switch args[0] {
	case "true":
	case "wait":
		io.Copy(io.Discard, os.Stdin)
	case "daemon":
		time.Sleep(10 * time.Minute)
	case "victim": // of init-*: holds a descriptor worth taking
		fmt.Println("ready")
		time.Sleep(10 * time.Minute)
	case "euid":
		fmt.Println(os.Geteuid())
	default:
		if !archHelper(args) {
			os.Exit(2)
		}
	}
}

// batch runs the attempts named on standard input, one process after the other.
// One that dies without a word is reported with the signal that ended it; so is
// one that takes longer than the argument patience (a duration), if there is one.
func batch(args []string) {
	patience := time.Hour
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, "patience="); ok {
			var err error
			patience, err = time.ParseDuration(v)
			check(err)
		}
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		cmd := exec.CommandContext(ctx, "/proc/self/exe", append([]string{in.Text()}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		cancel()
		if err != nil || len(out) == 0 {
			r := Result{Name: in.Text(), Errno: "unknown", Detail: fmt.Sprint(err)}
			if sig, ok := signalled(err); ok {
				r.Errno = unix.SignalName(sig)
			}
			check(json.NewEncoder(os.Stdout).Encode(r))
			continue
		}
		_, err = os.Stdout.Write(out)
		check(err)
	}
}

// killed sends a signal and looks whether the process is still there and
// running. The first process of a namespace ignores what it has no handler for.
func killed(pid int, send func(pid int) error) error {
	if err := send(pid); err != nil {
		return err
	}
	for range 20 {
		time.Sleep(20 * time.Millisecond)
		state, err := state(pid)
		if err != nil && !errors.Is(err, os.ErrPermission) {
			if pid == 1 && !errors.Is(unix.Kill(1, 0), unix.ESRCH) {
				continue // hidden, not gone
			}
			return nil
		}
		if state == "Z" || state == "T" || state == "X" {
			return nil
		}
	}
	return nothing("it goes on")
}

func state(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:1], nil
}

// daemon starts a process that has nothing to do with its parent any more.
func daemon(marker string) error {
	cmd := exec.Command("/proc/self/exe", "--helper", "daemon", marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

func memfdExec(params) error {
	fd, err := unix.MemfdCreate("escape", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	mem := os.NewFile(uintptr(fd), "escape")
	defer mem.Close()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	if _, err := io.Copy(mem, self); err != nil {
		return err
	}
	return exec.Command(procFD(fd), "--helper", "true").Run()
}

// suidExec runs a set-user-ID copy of this program, which says who it is.
func suidExec(path string, ours bool) error {
	if !ours { // some program of the system: only whether it would gain
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return err
		}
	}
	out, err := exec.Command(path, "--helper", "euid").Output()
	if err != nil && ours {
		return err
	}
	if strings.TrimSpace(string(out)) == "0" && os.Geteuid() != 0 {
		return nil
	}
	return nothing("no gain")
}

// signalled says by which signal a child ended.
func signalled(err error) (syscall.Signal, bool) {
	var e *exec.ExitError
	if errors.As(err, &e) {
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return ws.Signal(), true
		}
	}
	return 0, false
}
