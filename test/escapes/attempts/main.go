// SPDX-License-Identifier: Apache-2.0

// Command attempts makes one attempt to get out of a sandbox.
//
//	attempts --list                 what can be tried, as JSON
//	attempts NAME [KEY=VALUE ...]   try it; one JSON line: {name, ok, errno, detail}
//	attempts --batch [KEY=VALUE ...] the same for each name on standard input, each in a process of its own
//
// ok means that the attempt succeeded: inside a sandbox that is a hole, outside
// it is the control that shows the attempt to be a real one. errno is the
// symbolic name of the refusal, "SIGSYS" when the system call filter killed the
// caller, or "none" when nothing was refused and nothing was gained either.
// Attempts are harmless where they succeed: they open without writing, pass
// arguments that cannot do anything, or touch only what a KEY names.
//
// The program is static (CGO_ENABLED=0), so it runs in any view.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Expect is what must happen inside a sandbox.
type Expect struct {
	// Errnos: one of these. "none" = no error, but no effect either.
	Errnos []string `json:"errnos,omitempty"`
	// Contained: the attempt succeeds inside and must change nothing on the
	// host, during the run or after it. With Errnos as well, either is right:
	// profiles differ.
	Contained bool `json:"contained,omitempty"`
}

// Attempt is one row of the list.
type Attempt struct {
	Name    string   `json:"name"`
	Class   string   `json:"class"`
	Expect  Expect   `json:"expect"`
	Params  []string `json:"params,omitempty"` // KEYs it reads; all have a default for use inside
	Needs   []string `json:"needs,omitempty"`  // what the kernel or machine must have for the control
	NotIn   []string `json:"notIn,omitempty"`  // kinds of launch in which it is not an escape: "root-inside", "coding" ...
	Third   Expect   `json:"third,omitzero"`   // in place of Expect where BPF LSM is enforced, if it has a word to say
	Layer   string   `json:"layer"`            // what refuses it first
	Event   string   `json:"event"`            // event kind that must appear; "refusal": one of any kind with the error number; "none"
	Trace   string   `json:"trace,omitempty"`  // what that event must mention: an address, a path, a name
	Silent  string   `json:"silent,omitempty"` // with "none": why nothing can record the refusal itself
	Control string   `json:"control"`          // how it succeeds outside
	As      string   `json:"as"`               // the control's user: "root" or "user"
	Env     []string `json:"env,omitempty"`    // environment that the control has and the sandbox must not pass

	run func(p params) error
}

// Result is the line an attempt prints.
type Result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Errno  string `json:"errno"`
	Detail string `json:"detail"`
}

// refused is a failure that is not an error number.
type refused struct {
	errno  string
	detail string
}

func (r refused) Error() string { return r.errno + ": " + r.detail }

func nothing(format string, args ...any) error { return refused{"none", fmt.Sprintf(format, args...)} }

type params map[string]string

// get returns a parameter or its default.
func (p params) get(key, def string) string {
	if v, ok := p[key]; ok {
		return v
	}
	return def
}

func (p params) int(key string, def int) int {
	n := def
	if v, ok := p[key]; ok {
		if _, err := fmt.Sscanf(v, "%d", &n); err != nil {
			return def
		}
	}
	return n
}

func main() {
	runtime.LockOSThread()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: attempts --list | --batch [KEY=VALUE ...] | NAME [KEY=VALUE ...]")
		os.Exit(2)
	}
	switch os.Args[1] {
	case "--list":
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", " ")
		check(enc.Encode(all()))
		return
	case "--batch":
		batch(os.Args[2:])
		return
	case "--helper":
		helper(os.Args[2:])
		return
	}
	p := params{}
	for _, a := range os.Args[2:] {
		k, v, ok := strings.Cut(a, "=")
		if !ok {
			fmt.Fprintf(os.Stderr, "%q is not KEY=VALUE\n", a)
			os.Exit(2)
		}
		p[k] = v
	}
	for _, a := range all() {
		if a.Name == os.Args[1] {
			check(json.NewEncoder(os.Stdout).Encode(a.try(p)))
			return
		}
	}
	fmt.Fprintf(os.Stderr, "no attempt %q; see --list\n", os.Args[1])
	os.Exit(2)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func (a *Attempt) try(p params) Result {
	r := Result{Name: a.Name}
	err := a.run(p)
	var ref refused
	var errno syscall.Errno
	switch {
	case err == nil:
		r.OK = true
	case errors.As(err, &ref):
		r.Errno, r.Detail = ref.errno, ref.detail
	case errors.As(err, &errno):
		r.Errno, r.Detail = errnoName(errno), err.Error()
	default:
		r.Errno, r.Detail = "unknown", err.Error()
	}
	return r
}

func errnoName(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(e))
}

// sys makes a raw system call.
func sys(nr uintptr, args ...uintptr) error {
	_, err := sysr(nr, args...)
	return err
}

func sysr(nr uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, e := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return r, e
	}
	return r, nil
}

// reach makes a call whose arguments cannot do anything and succeeds when the
// kernel got as far as telling so.
func reach(nr uintptr, arrived []syscall.Errno, args ...uintptr) error {
	err := sys(nr, args...)
	for _, e := range arrived {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// bad is a pointer, descriptor or flag word that nothing accepts.
const bad = ^uintptr(0)
