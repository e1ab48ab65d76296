// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// Origin is the process that a record is about, beside Head.PID. It is what
// the process says of itself: no rule may depend on it. In records of packets
// it is zero.
type Origin struct {
	UID       uint32
	Comm      string
	Ancestors []Ancestor
	Start     uint64 // nanoseconds of CLOCK_BOOTTIME; with the pid it names a process for good
}

// Process names the process with this pid for good.
func (o *Origin) Process(pid uint32) Process { return Process{PID: pid, Start: o.Start} }

// Process is one process of this machine; no other is ever equal to it.
type Process struct {
	PID   uint32 // thread group in the host's pid namespace
	Start uint64 // nanoseconds of CLOCK_BOOTTIME
}

const tagPIDBits = 22

// Tag is what the sockets of a sandbox's process are marked with on their way
// to the gateway: the twin of rf_tag in bpf/origin.h. Processes that have had
// the same pid mostly differ in it.
func (p Process) Tag() uint32 {
	return uint32(p.Start*0x9e3779b97f4a7c15>>(32+tagPIDBits))<<tagPIDBits | p.PID
}

// Ancestor is one step up the parent chain, nearest first.
type Ancestor struct {
	PID  uint32
	Comm string
}

// PPID is the parent's pid; 0 if it is not known.
func (o *Origin) PPID() uint32 {
	if len(o.Ancestors) == 0 {
		return 0
	}
	return o.Ancestors[0].PID
}

func originOf(o *bpf.FenceRfOrigin) Origin {
	out := Origin{UID: o.Uid, Comm: text(o.Comm[:]), Start: o.StartNs}
	for _, p := range o.Parents {
		if p.Pid == 0 {
			break
		}
		out.Ancestors = append(out.Ancestors, Ancestor{p.Pid, text(p.Comm[:])})
	}
	return out
}

// Program is what a process executed last.
type Program struct {
	Filename string   // as given to execve, at most 255 bytes
	Args     []string // the first 256 bytes of them
	ArgsCut  bool     // there were more
}

func programOf(p *bpf.FenceRfProgram) Program {
	out := Program{Filename: text(p.Filename[:]), ArgsCut: p.ArgsTotal > uint32(p.ArgsLen)}
	if n := min(int(p.ArgsLen), len(p.Args)); n > 0 {
		out.Args = strings.Split(strings.TrimSuffix(string(p.Args[:n]), "\x00"), "\x00")
	}
	return out
}

// CommandLine is the arguments in one line.
func (p Program) CommandLine() string {
	line := strings.Join(p.Args, " ")
	if p.ArgsCut {
		line += " ..."
	}
	return line
}

// Ran is what a process executed last.
type Ran struct {
	Program
	Start uint64 // of the process, as in Origin
}

// ProgramOf returns what the process of a record runs. One that never executed
// anything runs what its nearest ancestor did that has. The kernel remembers
// some 8,000 processes of all sandboxes, the latest ones: forgotten, if not nil,
// is asked for others, by pid. ok is false when nobody knows.
func (f *Fence) ProgramOf(pid uint32, o *Origin, forgotten func(pid uint32) (Ran, bool)) (p Program, ok bool, err error) {
	own := func(start uint64) bool { return start == o.Start }
	if p, ok, err = f.ran(pid, own, forgotten); ok || err != nil {
		return p, ok, err
	}
	older := func(start uint64) bool { return start <= o.Start }
	for _, a := range o.Ancestors {
		if p, ok, err = f.ran(a.PID, older, forgotten); ok || err != nil {
			return p, ok, err
		}
	}
	return Program{}, false, nil
}

// ran is what a process of this pid that began at the right time executed last.
func (f *Fence) ran(pid uint32, right func(start uint64) bool, forgotten func(pid uint32) (Ran, bool)) (Program, bool, error) {
	known, ok, err := f.program(pid)
	if err != nil {
		return Program{}, false, err
	}
	if ok && right(known.StartNs) {
		return programOf(known), true, nil
	}
	if forgotten == nil {
		return Program{}, false, nil
	}
	r, ok := forgotten(pid)
	return r.Program, ok && right(r.Start), nil
}

func (f *Fence) program(pid uint32) (*bpf.FenceRfProgram, bool, error) {
	p := new(bpf.FenceRfProgram)
	err := f.maps.Programs.Lookup(pid, p)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return p, false, nil
	}
	if err != nil {
		return p, false, fmt.Errorf("program of process %d: %w", pid, err)
	}
	return p, true, nil
}
