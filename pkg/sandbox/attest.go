// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// The layers of a sandbox, as operators see them.
const (
	LayerNetwork    = "network"      // the programs on the cgroup, what they judge on, steering
	LayerNamespaces = "namespaces"   // those that every process must be in
	LayerFiles      = "files"        // mounts and Landlock
	LayerCalls      = "system calls" // the filter
	LayerIdentity   = "identity"     // uid, groups, capabilities, no_new_privs
	LayerProcesses  = "processes"    // who is in the cgroup, and who is not
)

// layers says of each what holds it up when nothing differs. Of a Landlock
// domain the kernel shows nothing to anybody (as of Linux 6.18): what /proc can
// say is that each thread has the filter and no_new_privs of init, which it got
// from init together with the domain.
var layers = [...]struct{ name, stands string }{
	{LayerNetwork, "our programs are on the cgroup and judge on what was written, the namespace is steered; a connect was refused at the start"},
	{LayerNamespaces, "every thread is in the sandbox's own"},
	{LayerFiles, "Landlock refused a file at the start and is inherited; the kernel shows no process's domain"},
	{LayerCalls, "every thread has the filter; a call was refused at the start"},
	{LayerIdentity, "every thread runs as the sandbox's uid, without capabilities and with no_new_privs"},
	{LayerProcesses, "all are in the cgroup, and nobody else is"},
}

// Difference is something that is not as it was intended.
type Difference struct {
	Layer string
	Text  string
	// Tolerated: the wall stands, and what is named may weaken it.
	Tolerated bool
}

// differences collects them.
type differences []Difference

func (d *differences) add(layer, format string, args ...any) {
	*d = append(*d, Difference{Layer: layer, Text: fmt.Sprintf(format, args...)})
}

// broken are those that are not tolerated.
func (d differences) broken() differences {
	return slices.DeleteFunc(slices.Clone(d), func(one Difference) bool { return one.Tolerated })
}

// maxTold bounds how many differences are put into words.
const maxTold = 12

func (d differences) String() string {
	var b strings.Builder
	for i, one := range d {
		if i == maxTold {
			fmt.Fprintf(&b, "; and %d more", len(d)-maxTold)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(one.Layer + ": " + one.Text)
	}
	return b.String()
}

// suspicions are what looks through all that the machine holds came upon, and
// what a look at the sandbox is to confirm.
type suspicions struct {
	strays    []int          // processes in its namespaces and, as it seemed, not in its cgroup
	unwritten []kernel.Entry // entries of its table that nobody wrote
}

func (a suspicions) and(b suspicions) suspicions {
	strays := append(slices.Clone(a.strays), b.strays...)
	slices.Sort(strays)
	unwritten := slices.Clone(a.unwritten)
	for _, e := range b.unwritten {
		if !slices.Contains(unwritten, e) {
			unwritten = append(unwritten, e)
		}
	}
	return suspicions{slices.Compact(strays), unwritten}
}

// lookAgain is how long after a look that found something the next one follows.
const lookAgain = 5 * time.Millisecond

// look compares kernel truth with intent. Processes come and go meanwhile and
// the kernel is not asked in one instant, so what it returns was found twice.
func (s *Sandbox) look(sus suspicions) differences { return twice(s.attest, sus) }

func twice(attest func(suspicions) differences, sus suspicions) differences {
	found := attest(sus)
	if len(found) == 0 {
		return nil
	}
	time.Sleep(lookAgain)
	again := attest(sus)
	return slices.DeleteFunc(found, func(d Difference) bool { return !slices.Contains(again, d) })
}

// attest looks once: at the programs on the cgroup, what they judge on and what
// they steer to; at the cgroup; and at every thread in it.
func (s *Sandbox) attest(sus suspicions) (d differences) {
	s.attestNetwork(&d)
	s.attestTables(&d)
	s.attestUnwritten(sus.unwritten, &d)
	if id, err := cgroupID(s.Record.Cgroup); err != nil {
		d.add(LayerProcesses, "%v", err)
		return d
	} else if id != s.Record.CgroupID {
		d.add(LayerProcesses, "cgroup %s is not the one that was made", s.Record.Cgroup)
	}
	for _, err := range sharedNamespaces(s.Record.Namespaces, s.m.host) {
		d.add(LayerNamespaces, "%v", err)
	}
	s.attestThreads(&d)
	s.attestStrays(sus.strays, &d)
	return d
}

func (s *Sandbox) attestNetwork(d *differences) {
	steered := false
	for _, l := range s.fence.Check() {
		if !l.OK {
			d.add(LayerNetwork, "%s: %s", l.Name, l.Detail)
		}
		for _, o := range l.Others {
			*d = append(*d, Difference{Layer: LayerNetwork, Tolerated: true,
				Text: fmt.Sprintf("%s: %s of somebody else is attached to the sandbox's cgroup; it may change what is judged", l.Name, o)})
		}
		if l.Name == "steer" {
			steered = true
			if want := s.Record.Namespaces["net"]; l.OK && uint64(l.NetNS) != want {
				d.add(LayerNetwork, "steer: attached to network namespace %d instead of %d", l.NetNS, want)
			}
		}
	}
	if !steered {
		d.add(LayerNetwork, "steer: not attached")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.fence.State(); st.Policy != s.table {
		d.add(LayerNetwork, "state: table %d is judged on instead of %d", st.Policy, s.table)
	}
}

// attestThreads looks at every thread in the cgroup and below it, and again at
// those that came meanwhile.
func (s *Sandbox) attestThreads(d *differences) {
	w := s.expectation()
	seen := map[int]bool{}
	for range maxLooks {
		tids, err := cgroupThreads(s.Record.Cgroup)
		if err != nil {
			d.add(LayerProcesses, "%v", err)
			return
		}
		fresh := false
		for _, tid := range tids {
			if seen[tid] {
				continue
			}
			seen[tid], fresh = true, true
			if err := w.thread(tid, d); err != nil && !errors.Is(err, os.ErrNotExist) {
				d.add(LayerProcesses, "thread %d: %v", tid, err)
			}
		}
		if !fresh {
			break
		}
	}
	if !seen[s.Record.Init.PID] {
		d.add(LayerProcesses, "the first process %d is not in the cgroup", s.Record.Init.PID)
	}
}

// maxLooks bounds how often the list of threads is read in one look: what comes
// faster than that are children of threads that were looked at, which cannot
// have less than their parents.
const maxLooks = 4

// namespaces of a sandbox. It has its own of each but user, which it has only
// for uid 0 inside; none of its processes may be in another.
var namespaces = []string{"mnt", "net", "pid", "ipc", "uts", "cgroup", "user"}

// namespacesOf reads the inodes of a process's namespaces: os.ErrNotExist when
// it has ended.
func namespacesOf(pid string) (map[string]uint64, error) {
	out := make(map[string]uint64, len(namespaces))
	for _, name := range namespaces {
		text, err := os.Readlink("/proc/" + pid + "/ns/" + name)
		if errors.Is(err, syscall.ESRCH) {
			err = os.ErrNotExist
		}
		if err != nil {
			return nil, fmt.Errorf("%s namespace: %w", name, err)
		}
		var ino uint64
		if _, err := fmt.Sscanf(text, name+":[%d]", &ino); err != nil {
			return nil, fmt.Errorf("%s namespace: %q: %w", name, text, err)
		}
		out[name] = ino
	}
	return out, nil
}

// namespaceText is how /proc names a namespace.
func namespaceText(name string, inode uint64) string { return fmt.Sprintf("%s:[%d]", name, inode) }

// sharedNamespaces names what a sandbox would share with the host.
func sharedNamespaces(own, host map[string]uint64) (errs []error) {
	for _, name := range namespaces {
		switch {
		case own[name] == 0:
			errs = append(errs, fmt.Errorf("no %s namespace was noted", name))
		case own[name] == host[name] && name != "user":
			errs = append(errs, fmt.Errorf("shares the host's %s namespace", name))
		}
	}
	return errs
}
