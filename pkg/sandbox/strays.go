// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// scannedNamespaces are those by which a process outside a sandbox's cgroup is
// found: the cgroup's programs judge nothing that it does.
var scannedNamespaces = []string{"pid", "net", "mnt"}

// strays looks through the processes of the machine once, for all sandboxes,
// and returns those that are in a namespace of a sandbox and not in its cgroup.
// It looks at the first thread of each process, which keeps its pid namespace
// when it has ended and others go on; the keeper's own threads enter
// namespaces of sandboxes and are left out.
func (m *Manager) strays(list []*Sandbox) (map[*Sandbox][]int, error) {
	owner := map[string]*Sandbox{}
	for _, s := range list {
		if s.Record.Foreign != nil {
			continue // its namespaces are not its own
		}
		for _, name := range scannedNamespaces {
			owner[namespaceText(name, s.Record.Namespaces[name])] = s
		}
	}
	others, err := otherProcesses()
	if err != nil {
		return nil, err
	}
	inside := map[*Sandbox][]int{}
	for _, pid := range others {
		for _, name := range scannedNamespaces {
			text, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
			if err != nil {
				break // it has ended
			}
			if s := owner[text]; s != nil {
				inside[s] = append(inside[s], pid)
				break
			}
		}
	}
	// A process that was seen above joined its cgroup before: read it now.
	for s, pids := range inside {
		members, err := cgroupProcesses(s.Record.Cgroup)
		if err != nil {
			delete(inside, s) // the cgroup is gone, or the next look at this sandbox says what it is
			continue
		}
		pids = slices.DeleteFunc(pids, func(p int) bool { return slices.Contains(members, p) })
		if inside[s] = pids; len(pids) == 0 {
			delete(inside, s)
		}
	}
	return inside, nil
}

// attestStrays looks again at processes that strays returned.
func (s *Sandbox) attestStrays(pids []int, d *differences) {
	if len(pids) == 0 {
		return
	}
	members, err := cgroupProcesses(s.Record.Cgroup)
	if err != nil {
		d.add(LayerProcesses, "%v", err)
		return
	}
	for _, pid := range pids {
		if slices.Contains(members, pid) {
			continue
		}
		b := newBounds()
		tid, err := livingThread(pid, &b) // the first one may have ended while others go on
		if err != nil || tid == 0 || comesOrGoes(tid) {
			continue
		}
		var in []string
		for _, name := range scannedNamespaces {
			text, err := os.Readlink("/proc/" + strconv.Itoa(tid) + "/ns/" + name)
			if err == nil && text == namespaceText(name, s.Record.Namespaces[name]) {
				in = append(in, name)
			}
		}
		if len(in) > 0 {
			d.add(LayerProcesses, "process %d is in the sandbox's %s namespace and not in its cgroup", pid, strings.Join(in, ", "))
		}
	}
}
