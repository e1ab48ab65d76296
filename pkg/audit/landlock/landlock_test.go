// SPDX-License-Identifier: Apache-2.0

//go:build linux

package landlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
)

const childEnv = "RINGFENCE_TEST_LANDLOCK_CHILD"

func TestMain(m *testing.M) {
	if target := os.Getenv(childEnv); target != "" {
		fmt.Fprintln(os.Stderr, confineAndWrite(target))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// confineAndWrite puts itself under a Landlock domain that lets nothing be
// written, logging also what it executes, and executes a shell that writes.
func confineAndWrite(target string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	attr := struct{ fs uint64 }{unix.LANDLOCK_ACCESS_FS_WRITE_FILE}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("create ruleset: %w", errno)
	}
	const logNewExecOn = 1 << 1 // LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, logNewExecOn, 0); errno != 0 {
		return fmt.Errorf("restrict self: %w", errno)
	}
	return syscall.Exec("/bin/sh", []string{"sh", "-c", `echo x > "$0"`, target}, nil)
}

// missing skips for a kernel feature that is not there, but fails in our own CI.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatalf("%s is missing", what)
	}
	t.Skipf("%s is missing", what)
}

func landlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

func TestDenialArrives(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: CAP_AUDIT_READ and CAP_AUDIT_CONTROL")
	}
	if landlockABI() < 7 {
		missing(t, "Landlock with audit (ABI 7, Linux 6.15)")
	}
	lock := filepath.Join(os.TempDir(), "ringfence-test-uids", "audit") // that of the daemons that other tests run meanwhile
	if err := os.MkdirAll(filepath.Dir(lock), 0o700); err != nil {
		t.Fatal(err)
	}
	before, err := auditEnabled()
	if errors.Is(err, ErrUnsupported) {
		missing(t, "the kernel's audit subsystem: "+err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	if before == 0 && alone(t, lock) {
		if _, _, err := OpenSocket(false, ""); !errors.Is(err, ErrOff) {
			t.Fatalf("audit was switched on without being asked for: %v", err)
		}
	}
	f, restore, err := OpenSocket(true, lock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for range 2 {
			if err := restore(); err != nil {
				t.Error(err)
			}
		}
		if now, err := auditEnabled(); err != nil || now != before && alone(t, lock) {
			t.Errorf("audit state is %d after restore, was %d: %v", now, before, err)
		}
	}()
	r, err := NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	// A name that the kernel must encode, and the control: outside it works.
	target := filepath.Join(t.TempDir(), "a \"quoted\"\nname")
	if out, err := exec.Command("/bin/sh", "-c", `echo x > "$0"`, target).CombinedOutput(); err != nil {
		t.Fatalf("control: %v %s", err, out)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+target)
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() == 3 {
		t.Fatalf("the child was not denied: %v %s", err, out)
	}
	pid := uint32(cmd.ProcessState.Pid())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var tr Tracker
	for {
		rec, err := r.Next(ctx)
		if err != nil {
			t.Fatalf("no record came: %v (%+v)", err, r.Stats())
		}
		for _, d := range tr.Add(rec) {
			if d.Path != target {
				continue
			}
			if !d.Known || d.By.PID != pid || !reflect.DeepEqual(d.Blockers, []string{"fs.write_file"}) {
				t.Fatalf("denial %+v, child was %d", d, pid)
			}
			e := d.Event()
			if e.Kind != event.KindFile || e.Path != target || !e.IsDenial() || e.PID != pid {
				t.Fatalf("event %+v", e)
			}
			return
		}
	}
}

// alone says whether nobody else reads under the lock.
func alone(t *testing.T, lock string) bool {
	t.Helper()
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
}

// TestLastOneSwitchesOff: of several readers the last puts the state back, also
// for one that was killed.
func TestLastOneSwitchesOff(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: CAP_AUDIT_READ and CAP_AUDIT_CONTROL")
	}
	before, err := auditEnabled()
	switch {
	case errors.Is(err, ErrUnsupported):
		missing(t, "the kernel's audit subsystem: "+err.Error())
	case err != nil:
		t.Fatal(err)
	case before != 0:
		t.Skip("audit is on: somebody else uses it")
	}
	lock := filepath.Join(os.TempDir(), "ringfence-test-uids", "audit")
	if err := os.MkdirAll(filepath.Dir(lock), 0o700); err != nil {
		t.Fatal(err)
	}
	open := func() (func() error, *os.File) {
		f, restore, err := OpenSocket(true, lock)
		if err != nil {
			t.Fatal(err)
		}
		return restore, f
	}
	first, f1 := open()
	second, f2 := open()
	defer f1.Close()
	defer f2.Close()
	if err := first(); err != nil {
		t.Fatal(err)
	}
	if now, err := auditEnabled(); err != nil || now != 1 {
		t.Errorf("the first that ended made the other blind: %d, %v", now, err)
	}
	if err := second(); err != nil {
		t.Fatal(err)
	}
	if now, err := auditEnabled(); err != nil || now != 0 && alone(t, lock) {
		t.Errorf("audit is still on: %d, %v", now, err)
	}
	if b, err := os.ReadFile(lock); err != nil || len(b) != 0 && alone(t, lock) {
		t.Errorf("the lock file says %q: %v", b, err)
	}
}

func TestNextEnds(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	r, err := NewReader(os.NewFile(uintptr(fds[0]), "pair"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a reader outlives a context
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("context: %v", err)
		}
		cancel()
	}
	done := make(chan error)
	go func() {
		_, err := r.Next(context.Background())
		done <- err
	}()
	// What does not come from the kernel is skipped.
	if _, err := unix.Write(fds[1], bytes.Repeat([]byte("x"), 64)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	r.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestParse(t *testing.T) {
	at := time.Unix(1729738800, 268e6).UTC()
	for _, c := range []struct {
		name string
		typ  Type
		in   string
		want Record // Type, Time and Serial are filled in
	}{
		{"file", TypeAccess, `domain=195ba459b blockers=fs.refer,fs.make_reg path="/usr/bin" dev="vda2" ino=351`,
			Record{Domain: 0x195ba459b, Blockers: []string{"fs.refer", "fs.make_reg"}, Path: "/usr/bin", Dev: "vda2", Ino: 351}},
		{"hex name", TypeAccess, "domain=1 blockers=fs.read_file path=2F746D702F6120220A dev=\"tmpfs\" ino=2\x00",
			Record{Domain: 1, Blockers: []string{"fs.read_file"}, Path: "/tmp/a \"\n", Dev: "tmpfs", Ino: 2}},
		{"an equals sign and a forged field inside quotes stay text", TypeAccess, `domain=1 blockers=fs.read_file path="/domain=2"`,
			Record{Domain: 1, Blockers: []string{"fs.read_file"}, Path: "/domain=2"}},
		{"signal", TypeAccess, `domain=1a blockers=scope.signal opid=1 ocomm="systemd"`,
			Record{Domain: 0x1a, Blockers: []string{"scope.signal"}, TargetPID: 1, TargetComm: "systemd"}},
		{"network", TypeAccess, `domain=1a blockers=net.connect_tcp daddr=::1 dest=80`,
			Record{Domain: 0x1a, Blockers: []string{"net.connect_tcp"}, Addr: "::1", Port: 80}},
		{"unknown field", TypeAccess, `domain=1a blockers=fs.ioctl_dev path="/dev/x" ioctlcmd=0x5401 later="a b"`,
			Record{Domain: 0x1a, Blockers: []string{"fs.ioctl_dev"}, Path: "/dev/x"}},
		{"no path", TypeAccess, `domain=1a blockers=fs.read_file path=(null)`,
			Record{Domain: 0x1a, Blockers: []string{"fs.read_file"}, Path: "(null)"}},
		{"domain", TypeDomain, `domain=195ba459b status=allocated mode=enforcing pid=300 uid=1000 exe="/root/sandboxer" comm=612062`,
			Record{Domain: 0x195ba459b, Status: "allocated", Mode: "enforcing", PID: 300, UID: 1000, Exe: "/root/sandboxer", Comm: "a b"}},
		{"end of a domain", TypeDomain, `domain=195ba459b status=deallocated denials=3`,
			Record{Domain: 0x195ba459b, Status: "deallocated", Denials: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse(c.typ, []byte("audit(1729738800.268:30): "+c.in))
			if err != nil {
				t.Fatal(err)
			}
			c.want.Type, c.want.Time, c.want.Serial = c.typ, at, 30
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "audit(1.000:1): domain=1 blockers=fs.read_file "
	for name, in := range map[string]string{
		"empty":             "",
		"no stamp":          "domain=1 blockers=fs.x",
		"bad stamp":         "audit(1:1): domain=1 blockers=fs.x",
		"bad serial":        "audit(1.000:x): domain=1 blockers=fs.x",
		"bad milliseconds":  "audit(1.1000:1): domain=1 blockers=fs.x",
		"no domain":         "audit(1.000:1): blockers=fs.x",
		"no blockers":       "audit(1.000:1): domain=1",
		"domain is not hex": "audit(1.000:1): domain=xyz blockers=fs.x",
		"domain twice":      good + "domain=2",
		"open quote":        good + `path="/etc`,
		"text behind quote": good + `path="/etc"x`,
		"quote inside":      good + `path=/et"c`,
		"odd hex":           good + "path=2F7",
		"no key":            good + "=x",
		"no value":          good + "word",
		"number overflow":   good + "opid=4294967296",
		"port overflow":     good + "dest=65536",
		"too long":          good + `path="` + strings.Repeat("x", maxRecord) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := Parse(TypeAccess, []byte(in)); !errors.Is(err, ErrRecord) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	if _, err := Parse(1300, []byte(good)); !errors.Is(err, ErrRecord) {
		t.Error("a foreign record type was parsed")
	}
	if _, err := Parse(TypeDomain, []byte("audit(1.000:1): domain=1 status=odd")); !errors.Is(err, ErrRecord) {
		t.Error("an unknown domain status was taken")
	}
}

func TestTracker(t *testing.T) {
	access := func(serial, domain uint64) Record {
		return Record{Type: TypeAccess, Serial: serial, Domain: domain, Blockers: []string{"fs.read_file"}}
	}
	born := func(serial, domain uint64, pid uint32) Record {
		return Record{Type: TypeDomain, Serial: serial, Domain: domain, Status: "allocated", PID: pid}
	}
	var tr Tracker
	steps := []struct {
		name string
		in   Record
		want []uint32 // pids of the denials that come out, 0 for unknown
	}{
		{"first denial waits for its domain", access(1, 7), nil},
		{"domain comes behind it", born(1, 7, 70), []uint32{70}},
		{"later denial of a known domain", access(2, 7), []uint32{70}},
		{"unknown domain", access(3, 8), nil},
		{"another event: it does not come any more", access(4, 7), []uint32{0, 70}},
		{"nested domain that is gone", Record{Type: TypeDomain, Domain: 7, Status: "deallocated"}, nil},
		{"gone means unknown", access(5, 7), nil},
	}
	for _, s := range steps {
		var got []uint32
		for _, d := range tr.Add(s.in) {
			if d.Known != (d.By.PID != 0) {
				t.Errorf("%s: %+v", s.name, d)
			}
			got = append(got, d.By.PID)
		}
		if !reflect.DeepEqual(got, s.want) {
			t.Errorf("%s: %v, want %v", s.name, got, s.want)
		}
	}
	if !tr.Waiting() || len(tr.Flush()) != 1 || tr.Waiting() {
		t.Error("flush")
	}
	for i := range uint64(3 * maxDomains) {
		tr.Add(born(i, i, 1))
	}
	if len(tr.domains) > maxDomains || len(tr.order) > maxDomains {
		t.Errorf("%d domains are kept", len(tr.domains))
	}
}

func FuzzParse(f *testing.F) {
	f.Add(uint16(1423), []byte(`audit(1729738800.268:30): domain=195ba459b blockers=fs.refer path="/usr/bin" dev="vda2" ino=351`))
	f.Add(uint16(1423), []byte("audit(1.000:1): domain=1 blockers=fs.read_file path=2F20 opid=3 ocomm=(null)\x00"))
	f.Add(uint16(1424), []byte(`audit(1.000:1): domain=1 status=allocated mode=enforcing pid=300 uid=0 exe="/x" comm="y"`))
	f.Fuzz(func(t *testing.T, typ uint16, in []byte) {
		r, err := Parse(Type(typ), in)
		if err != nil {
			return
		}
		var tr Tracker
		for _, d := range append(tr.Add(r), tr.Flush()...) {
			e := d.Event()
			if _, err := e.AppendOCSF(nil, event.Node{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
