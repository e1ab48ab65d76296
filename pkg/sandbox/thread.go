// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// expectation is what must hold for every thread of a sandbox.
type expectation struct {
	uid        uint32
	operators  uint32 // group that none may have
	namespaces []namespaceLink
	filters    int // least number of system call filters: those of init

	buf []byte // for what is read
}

// namespaceLink is where /proc shows a namespace of a thread, and what it is to
// show.
type namespaceLink struct{ name, link, text string }

func namespaceLinks(inodes map[string]uint64) []namespaceLink {
	out := make([]namespaceLink, len(namespaces))
	for i, name := range namespaces {
		out[i] = namespaceLink{name, "ns/" + name, namespaceText(name, inodes[name])}
	}
	return out
}

func (s *Sandbox) expectation() *expectation {
	w := &expectation{uid: s.Record.UID, operators: s.m.o.Operators, filters: 1, namespaces: namespaceLinks(s.Record.Namespaces)}
	if st, err := readStatus(s.Record.Init.PID); err == nil {
		if n, err := strconv.Atoi(st["Seccomp_filters"]); err == nil { // since Linux 5.9
			w.filters = n
		}
	}
	return w
}

// thread looks at one thread; os.ErrNotExist when it has ended. A thread that
// is ending has lost its namespaces before its number.
func (w *expectation) thread(tid int, d *differences) error {
	dir, err := openThread(tid)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	st, err := w.status(dir)
	if err != nil {
		return err
	}
	if ended(st) {
		return os.ErrNotExist
	}
	who := "process " + st["Tgid"]
	if st["Tgid"] != strconv.Itoa(tid) {
		who = fmt.Sprintf("thread %d of process %s", tid, st["Tgid"])
	}
	var found differences
	var others []string
	for _, ns := range w.namespaces {
		n, err := unix.Readlinkat(dir, ns.link, w.buf)
		if err != nil {
			return w.endedOr(dir, fmt.Errorf("%s: %w", ns.link, err))
		}
		if string(w.buf[:n]) != ns.text {
			others = append(others, ns.name)
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

// openThread opens the directory of one thread: the same one, whoever gets its
// number later.
func openThread(tid int) (int, error) {
	dir, err := unix.Open("/proc/"+strconv.Itoa(tid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return dir, noThread(err)
}

// noThread turns what the kernel says of a thread that has ended into
// os.ErrNotExist.
func noThread(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return os.ErrNotExist
	}
	return err
}

func ended(st map[string]string) bool {
	return strings.HasPrefix(st["State"], "Z") || strings.HasPrefix(st["State"], "X")
}

// endedOr is os.ErrNotExist if a thread whose namespace could not be read has
// ended, else err. The kernel answers that with ESRCH, ENOENT or EACCES, by how
// far it has come; the last is also the answer to one who has no right.
func (w *expectation) endedOr(dir int, err error) error {
	if err := noThread(err); errors.Is(err, os.ErrNotExist) {
		return err
	}
	st, serr := w.status(dir)
	if serr != nil {
		return serr
	}
	if ended(st) {
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

// status reads that of the thread whose directory is open; os.ErrNotExist when
// it has ended.
func (w *expectation) status(dir int) (map[string]string, error) {
	fd, err := unix.Openat(dir, "status", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, noThread(err)
	}
	defer unix.Close(fd)
	if w.buf == nil {
		w.buf = make([]byte, 8<<10) // about 1.5 kB, and 11 more for each group
	}
	n := 0
	for {
		if n == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
		m, err := unix.Read(fd, w.buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, noThread(err)
		case m == 0:
			return parseStatus(w.buf[:n]), nil
		default:
			n += m
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
func readStatus(pid int) (map[string]string, error) {
	dir, err := openThread(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	return new(expectation).status(dir)
}
