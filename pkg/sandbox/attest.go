// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/ringfence/ringfence/pkg/event"
)

// attest compares kernel truth with intent: the links on the cgroup, and for
// every process of the cgroup its namespaces, ids, groups, capabilities,
// no_new_privs and system call filters. It names everything that does not
// hold. Of Landlock /proc shows nothing (as of Linux 6.18): that init confined
// itself is init's word, given before the agent ran.
func (s *Sandbox) attest() error {
	var errs []error
	id, err := cgroupID(s.Record.Cgroup)
	if err != nil {
		return err
	}
	if id != s.Record.CgroupID {
		errs = append(errs, fmt.Errorf("cgroup %s is not the one that was made", s.Record.Cgroup))
	}
	for _, l := range s.fence.Check() {
		if !l.OK {
			errs = append(errs, fmt.Errorf("network program %s: %s", l.Name, l.Detail))
		}
	}
	pids, err := cgroupPIDs(s.Record.Cgroup)
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		errs = append(errs, errors.New("the cgroup has no process"))
	}
	w := expectation{uid: s.Record.UID, operators: s.m.o.Operators, namespaces: s.Record.Namespaces, filters: 1}
	errs = append(errs, ownNamespaces(s.Record.Namespaces, s.m.host))
	if st, err := readStatus(s.Record.Init.PID); err == nil {
		if n, err := strconv.Atoi(st["Seccomp_filters"]); err == nil { // since Linux 5.9
			w.filters = n
		}
	}
	for _, p := range pids {
		if err := w.attestProcess(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("process %d: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// expectation is what must hold for every process of a sandbox.
type expectation struct {
	uid        uint32
	operators  uint32 // group that none may have
	namespaces map[string]uint64
	filters    int // least number of system call filters: those of init
}

// attestProcess checks one process; os.ErrNotExist when it has ended.
func (w *expectation) attestProcess(pid int) error {
	st, err := readStatus(pid)
	if err != nil {
		return err
	}
	if strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X") {
		return nil
	}
	ns, err := namespacesOf(strconv.Itoa(pid))
	if err != nil {
		return err
	}
	errs := w.checkStatus(st)
	for name, want := range w.namespaces {
		if ns[name] != want {
			errs = append(errs, fmt.Errorf("is in another %s namespace than the sandbox", name))
		}
	}
	return errors.Join(errs...)
}

// checkStatus judges the fields of /proc/PID/status.
func (w *expectation) checkStatus(st map[string]string) (errs []error) {
	for _, k := range []string{"Uid", "Gid", "Groups"} {
		for f := range strings.FieldsSeq(st[k]) {
			switch {
			case f == "0":
				errs = append(errs, fmt.Errorf("has host %s 0", strings.ToLower(k)))
			case k != "Uid" && f == strconv.FormatUint(uint64(w.operators), 10):
				errs = append(errs, fmt.Errorf("has the operators' group %s", f))
			}
		}
	}
	for f := range strings.FieldsSeq(st["Uid"]) {
		if f != strconv.FormatUint(uint64(w.uid), 10) {
			errs = append(errs, fmt.Errorf("runs as uid %s instead of %d", f, w.uid))
			break
		}
	}
	for _, k := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if st[k] == "" || strings.Trim(st[k], "0") != "" {
			errs = append(errs, fmt.Errorf("%s is %q", k, st[k]))
		}
	}
	if st["NoNewPrivs"] != "1" {
		errs = append(errs, errors.New("no_new_privs is not set"))
	}
	if st["Seccomp"] != "2" {
		errs = append(errs, errors.New("no system call filter"))
	}
	if n, err := strconv.Atoi(st["Seccomp_filters"]); err == nil && n < w.filters {
		errs = append(errs, fmt.Errorf("%d system call filters where init has %d", n, w.filters))
	}
	return errs
}

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

// ownNamespaces refuses a sandbox that shares a namespace with the host.
func ownNamespaces(own, host map[string]uint64) error {
	var errs []error
	for _, name := range namespaces {
		switch {
		case own[name] == 0:
			errs = append(errs, fmt.Errorf("no %s namespace was noted", name))
		case own[name] == host[name] && name != "user":
			errs = append(errs, fmt.Errorf("shares the host's %s namespace", name))
		}
	}
	return errors.Join(errs...)
}

// readStatus reads /proc/PID/status into its fields.
func readStatus(pid int) (map[string]string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if k, v, ok := strings.Cut(sc.Text(), ":"); ok {
			out[k] = strings.TrimSpace(v)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", os.ErrNotExist, err) // ESRCH while reading: it has ended
	}
	return out, nil
}

// attestOne stops a sandbox whose walls no longer stand.
func (m *Manager) attestOne(s *Sandbox) {
	if s.State() != Running {
		return
	}
	if s.Record.Foreign != nil {
		s.attestForeignOnce()
		return
	}
	err := s.attest()
	if err == nil || !s.Record.Init.Alive() { // it ended meanwhile
		return
	}
	s.mu.Lock()
	s.problems = append(s.problems, err.Error())
	s.why = "its walls no longer stood"
	s.mu.Unlock()
	e := s.event(event.KindTamper)
	e.Severity, e.Activity, e.Layer = event.SeverityCritical, "attest", "keeper"
	e.Reason, e.ReasonCode = "the walls of the sandbox no longer stand; it is stopped", "attestation"
	e.Detail = err.Error()
	s.append(e)
	m.o.Logger.Error("attestation failed; stopping the sandbox", "sandbox", s.Record.ID, "error", err)
	s.Stop(0)
}
