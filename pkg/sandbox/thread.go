// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// expectation is what must hold for every thread of a sandbox.
type expectation struct {
	uid        uint32
	operators  uint32            // group that none may have
	namespaces map[string]string // by name, as /proc names them
	filters    int               // least number of system call filters: those of init

	buf []byte // of the last status that was read
}

func (s *Sandbox) expectation() *expectation {
	w := &expectation{uid: s.Record.UID, operators: s.m.o.Operators, filters: 1, namespaces: make(map[string]string, len(namespaces))}
	for _, name := range namespaces {
		w.namespaces[name] = namespaceText(name, s.Record.Namespaces[name])
	}
	if st, err := w.status(s.Record.Init.PID); err == nil {
		if n, err := strconv.Atoi(st["Seccomp_filters"]); err == nil { // since Linux 5.9
			w.filters = n
		}
	}
	return w
}

// thread looks at one thread; os.ErrNotExist when it has ended. A thread that
// is ending has lost its namespaces before its number.
func (w *expectation) thread(tid int, d *differences) error {
	st, err := w.status(tid)
	if err != nil {
		return err
	}
	if strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X") {
		return nil
	}
	who := "process " + st["Tgid"]
	if st["Tgid"] != strconv.Itoa(tid) {
		who = fmt.Sprintf("thread %d of process %s", tid, st["Tgid"])
	}
	var found differences
	var others []string
	for _, name := range namespaces {
		text, err := os.Readlink("/proc/" + strconv.Itoa(tid) + "/ns/" + name)
		if err != nil {
			return w.endedOr(tid, err)
		}
		if text != w.namespaces[name] {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		found.add(LayerNamespaces, "%s is in another %s namespace than the sandbox", who, strings.Join(others, ", "))
	}
	w.checkIdentity(st, who, &found)
	w.checkCalls(st, who, &found)
	*d = append(*d, found...)
	return nil
}

// endedOr is os.ErrNotExist if a thread whose namespace could not be read has
// ended, else err. The kernel answers that with ESRCH, ENOENT or EACCES, by how
// far it has come; the last is also the answer to one who has no right.
func (w *expectation) endedOr(tid int, err error) error {
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, os.ErrNotExist) {
		return os.ErrNotExist
	}
	st, serr := w.status(tid)
	if serr != nil {
		return serr
	}
	if strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X") {
		return os.ErrNotExist
	}
	return err
}

// checkIdentity judges who a thread is and what it may become.
func (w *expectation) checkIdentity(st map[string]string, who string, d *differences) {
	operators, uid := strconv.FormatUint(uint64(w.operators), 10), strconv.FormatUint(uint64(w.uid), 10)
	for _, k := range []string{"Uid", "Gid", "Groups"} {
		ids := strings.Fields(st[k])
		if slices.Contains(ids, "0") {
			d.add(LayerIdentity, "%s has host %s 0", who, strings.ToLower(k))
		}
		if k != "Uid" && slices.Contains(ids, operators) {
			d.add(LayerIdentity, "%s has the operators' group %s", who, operators)
		}
	}
	uids := strings.Fields(st["Uid"])
	if i := slices.IndexFunc(uids, func(u string) bool { return u != uid }); i >= 0 || len(uids) == 0 {
		d.add(LayerIdentity, "%s runs as uid %q instead of %s", who, st["Uid"], uid)
	}
	var caps []string
	for _, k := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if st[k] == "" || strings.Trim(st[k], "0") != "" {
			caps = append(caps, fmt.Sprintf("%s %q", k, st[k]))
		}
	}
	if len(caps) > 0 {
		d.add(LayerIdentity, "%s has %s", who, strings.Join(caps, ", "))
	}
	if st["NoNewPrivs"] != "1" {
		d.add(LayerIdentity, "%s has no_new_privs not set", who)
	}
}

func (w *expectation) checkCalls(st map[string]string, who string, d *differences) {
	if st["Seccomp"] != "2" {
		d.add(LayerCalls, "%s has no system call filter", who)
		return
	}
	if n, err := strconv.Atoi(st["Seccomp_filters"]); err == nil && n < w.filters {
		d.add(LayerCalls, "%s has %d system call filters where init has %d", who, n, w.filters)
	}
}

// statusFields are what is read of /proc/PID/status.
var statusFields = map[string]bool{
	"State": true, "Tgid": true, "Uid": true, "Gid": true, "Groups": true, "VmSize": true,
	"CapInh": true, "CapPrm": true, "CapEff": true, "CapBnd": true, "CapAmb": true,
	"NoNewPrivs": true, "Seccomp": true, "Seccomp_filters": true,
}

// status reads that of one thread; os.ErrNotExist when it has ended.
func (w *expectation) status(tid int) (map[string]string, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(tid) + "/status")
	if errors.Is(err, syscall.ESRCH) { // it ended between the lookup and the opening
		return nil, os.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if w.buf == nil {
		w.buf = make([]byte, 8<<10) // about 1.5 kB, and 11 more for each group
	}
	n := 0
	for {
		if n == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
		m, err := f.Read(w.buf[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return parseStatus(w.buf[:n]), nil
		}
		if errors.Is(err, syscall.ESRCH) {
			return nil, os.ErrNotExist
		}
		if err != nil {
			return nil, err
		}
	}
}

// parseStatus reads the fields that count. The name of the process is the first
// line, and the kernel escapes newlines in it.
func parseStatus(b []byte) map[string]string {
	out := make(map[string]string, len(statusFields))
	for line := range bytes.Lines(b) {
		k, v, ok := bytes.Cut(line, []byte{':'})
		if ok && statusFields[string(k)] {
			out[string(k)] = string(bytes.TrimSpace(v))
		}
	}
	return out
}

// readStatus reads /proc/PID/status once.
func readStatus(pid int) (map[string]string, error) { return new(expectation).status(pid) }
