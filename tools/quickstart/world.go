// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// world is what the demo agent meets on the host: its workspace, and things
// beside it that must stay out of its reach.
type world struct {
	workspace string
	outside   string // a file it tries to make
	socket    string // a daemon's socket, a stand-in for docker.sock
	listener  net.Listener
	reached   atomic.Int32 // connections the stand-in got
	controls  map[string]error
}

func newWorld(dir string) (*world, error) {
	w := &world{workspace: filepath.Join(dir, "workspace"), outside: filepath.Join(dir, "outside"), socket: filepath.Join(dir, "docker.sock")}
	if err := os.Mkdir(w.workspace, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(w.workspace, "README"), []byte("A project that an agent works on.\n"), 0o644); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		return nil, err
	}
	w.listener = l
	go w.serve()
	if err := os.Chmod(w.socket, 0o666); err != nil {
		return nil, err
	}
	w.control()
	return w, nil
}

func (w *world) serve() {
	for {
		c, err := w.listener.Accept()
		if err != nil {
			return // closed
		}
		w.reached.Add(1)
		c.Close()
	}
}

// control does outside what the agent will try inside: a refusal proves
// something only where the same act succeeds without the fence.
func (w *world) control() {
	_, shadow := os.ReadFile("/etc/shadow")
	w.controls = map[string]error{
		"shadow": shadow,
		"write":  errors.Join(os.WriteFile(w.outside, nil, 0o644), os.Remove(w.outside)),
		"raw":    openSocket(unix.AF_INET, unix.IPPROTO_ICMP),
		"packet": openSocket(unix.AF_PACKET, 0x0300),
	}
	c, err := net.Dial("unix", w.socket)
	if err == nil {
		c.Close()
		for w.reached.Load() == 0 { // accepted in the backlog; it arrives
			unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
		}
		w.reached.Store(0)
	}
	w.controls["docker1"] = err
}

func openSocket(family, protocol int) error {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (w *world) buildAgent(ctx context.Context, top string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(w.workspace, "demo-agent"), "./tools/demo-agent")
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the demo agent: %w\n%s", err, out)
	}
	return nil
}

// harm says what an attempt did to the host, "" for nothing.
func (w *world) harm(id string) string {
	switch id {
	case "write":
		if _, err := os.Lstat(w.outside); err == nil {
			return "the file is on the host"
		}
	case "usr":
		if _, err := os.Lstat("/usr/local/bin/demo-agent-was-here"); err == nil {
			return "the file is on the host"
		}
	case "docker1":
		if w.reached.Load() != 0 {
			return "the socket's owner got a connection"
		}
	}
	return ""
}

func (w *world) close() { w.listener.Close() }
