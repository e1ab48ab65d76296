// SPDX-License-Identifier: Apache-2.0

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Ringfence-init is PID 1 of a sandbox. It runs twice:
//
// The first time it has the rights that building needs (root, or root of its
// own user namespace). It receives a specification on descriptor 3, builds the
// root file system, gives up identity, capabilities and descriptors, enters the
// agent's Landlock domain, and executes itself again from the sealed memfd on
// descriptor 4. Everything it gives up, it gives up on one thread: the
// others end with the exec.
//
// The second time it has no more rights than the agent. It loads the system
// call filter, tries the walls once, tells the keeper what came of it, waits
// for Go, starts the agent, and from then on only reaps, forwards signals and
// answers.
//
// The memfd is execute-only, so the second program is non-dumpable from its
// first instruction. No other program exists in the sandbox before Go.
//
// Outside of sandboxes the same binary holds the output of a detached one: see
// package holder.
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/holder"
	"golang.org/x/sys/unix"
)

const (
	controlFD = 3
	selfFD    = 4
	// exitSetup is init's own exit status when nothing was started.
	exitSetup = 125
)

var processName = [...]byte{'r', 'i', 'n', 'g', 'f', 'e', 'n', 'c', 'e', '-', 'i', 'n', 'i', 't', 0}

func main() {
	if err, asked := holder.Main(os.Args); asked {
		if err != nil {
			fmt.Fprintln(os.Stderr, "ringfence-init:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 { // defaultSignals counts on it
		fmt.Fprintln(os.Stderr, "ringfence-init is started by ringfenced as the first process of a sandbox; it does nothing by itself")
		os.Exit(exitSetup)
	}
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		os.Exit(parkFirstThread(func() int { return guardMain(os.Args[2]) }))
	}
	os.Exit(buildMain())
}

// buildMain is the first run. It returns only when it failed.
func buildMain() int {
	conn, err := confine.NewConn(controlFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitSetup
	}
	m, err := conn.Recv()
	if err != nil {
		return exitSetup // the keeper has gone before it said anything
	}
	err = build(m)
	sendFailure(conn, 0, exitSetup, err)
	return exitSetup
}

func build(m *confine.Message) error {
	if m.Type != confine.FrameSpec {
		return fmt.Errorf("expected a specification, got frame %d", m.Type)
	}
	spec, err := confine.DecodeSpec(m.Payload)
	if err != nil {
		return err
	}
	if err := buildRoot(spec, m.FDs); err != nil {
		return err
	}
	return enter(spec, m.FDs)
}

// guardMain is the second run; arg is the descriptor of the specification.
func guardMain(arg string) int {
	defaultSignals()
	// A readable name for ps; the memfd's would be shown otherwise.
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&processName[0])), 0, 0, 0)
	fd, err := strconv.Atoi(arg)
	if err != nil {
		return exitSetup
	}
	spec, err := readSpec(fd)
	if err != nil {
		return exitSetup
	}
	conn, err := confine.NewConn(controlFD)
	if err != nil {
		return exitSetup
	}
	g, err := newGuard(conn, spec)
	if err == nil {
		err = lock(spec)
	}
	if err == nil {
		g.probes, err = tryWalls()
	}
	if err != nil {
		sendFailure(conn, 0, exitSetup, err)
		return exitSetup
	}
	return g.run()
}

func readSpec(fd int) (*confine.Spec, error) {
	f := os.NewFile(uintptr(fd), "spec")
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, fi.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return confine.DecodeSpec(b)
}

// sendFailure reports err; the text goes along as payload.
func sendFailure(c *confine.Conn, seq uint32, status int32, err error) {
	text := err.Error()
	if len(text) > 1000 {
		text = text[:1000]
	}
	var errno unix.Errno
	errors.As(err, &errno)
	// When the peer has gone there is nobody left to tell.
	_ = c.Send(confine.Frame{Type: confine.FrameFailed, Status: status, Errno: int32(errno), Seq: seq}, []byte(text))
}
