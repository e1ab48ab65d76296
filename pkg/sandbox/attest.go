// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
)

// attest compares kernel truth with intent: the links on the cgroup, the
// namespaces, and for every process of the cgroup its uid, capabilities,
// no_new_privs and seccomp mode. It names everything that does not hold.
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
	for _, p := range pids {
		if err := s.attestProcess(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("process %d: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// attestProcess checks one process; os.ErrNotExist when it has ended.
func (s *Sandbox) attestProcess(pid int) error {
	st, err := readStatus(pid)
	if err != nil {
		return err
	}
	if strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X") {
		return nil
	}
	var errs []error
	for _, k := range []string{"Uid", "Gid"} {
		for f := range strings.FieldsSeq(st[k]) {
			if f == "0" {
				errs = append(errs, fmt.Errorf("has host %s 0", strings.ToLower(k)))
				break
			}
		}
	}
	if uid, _, _ := strings.Cut(st["Uid"], "\t"); uid != strconv.FormatUint(uint64(s.Record.UID), 10) {
		errs = append(errs, fmt.Errorf("runs as uid %s instead of %d", uid, s.Record.UID))
	}
	for _, k := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if strings.Trim(st[k], "0") != "" {
			errs = append(errs, fmt.Errorf("%s is %s", k, st[k]))
		}
	}
	if st["NoNewPrivs"] != "1" {
		errs = append(errs, errors.New("no_new_privs is not set"))
	}
	if st["Seccomp"] != "2" {
		errs = append(errs, errors.New("no system call filter"))
	}
	if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && ns == hostNetNS() {
		errs = append(errs, errors.New("is in the host's network namespace"))
	}
	return errors.Join(errs...)
}

func hostNetNS() string {
	ns, _ := os.Readlink("/proc/self/ns/net") // "" never equals a namespace
	return ns
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
	err := s.attest()
	if err == nil || !s.Record.Init.Alive() { // it ended meanwhile
		return
	}
	s.mu.Lock()
	s.problems = append(s.problems, err.Error())
	s.mu.Unlock()
	e := s.event(event.KindTamper)
	e.Severity, e.Activity, e.Layer = event.SeverityCritical, "attest", "keeper"
	e.Reason, e.ReasonCode = "the walls of the sandbox no longer stand; it is stopped", "attestation"
	e.Detail = err.Error()
	s.append(e)
	m.o.Logger.Error("attestation failed; stopping the sandbox", "sandbox", s.Record.ID, "error", err)
	s.Stop(0)
}
