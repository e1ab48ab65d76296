// SPDX-License-Identifier: Apache-2.0

package refusal

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/seccomp"
)

func number(t testing.TB, call string) uint32 {
	t.Helper()
	nr, ok := seccomp.Number(call)
	if !ok {
		t.Skipf("this architecture has no %s", call)
	}
	return nr
}

func inet(family uint16, addr []byte, port uint16) []byte {
	b := binary.NativeEndian.AppendUint16(nil, family)
	b = binary.BigEndian.AppendUint16(b, port)
	if family == unix.AF_INET6 {
		b = append(b, 0, 0, 0, 0)
	}
	return append(b, addr...)
}

func unixAddr(path string) []byte {
	return append(binary.NativeEndian.AppendUint16(nil, unix.AF_UNIX), path...)
}

func TestEvent(t *testing.T) {
	for _, c := range []struct {
		name, call string
		errno      unix.Errno
		args       [6]uint64
		subject    kernel.Subject
		what       []byte
		none       bool // it is no refusal

		kind         event.Kind
		layer, code  string
		target, says string
	}{
		{name: "read-only", call: "openat", errno: unix.EROFS, subject: kernel.SubjectPath, what: []byte("/usr/x"),
			kind: event.KindFile, layer: "mount", code: "read-only", target: "open /usr/x"},
		{name: "landlock or mode", call: "openat", errno: unix.EACCES, subject: kernel.SubjectPath, what: []byte("/etc/shadow"),
			kind: event.KindFile, layer: "files", code: "files", target: "open /etc/shadow"},
		{name: "absent", call: "unlinkat", errno: unix.ENOENT, subject: kernel.SubjectPath, what: []byte("/root/x"),
			kind: event.KindFile, layer: "mount", code: "not-in-view", target: "delete /root/x"},
		{name: "set-id bit", call: "fchmodat", errno: unix.EPERM, args: [6]uint64{0, 0, 0o4755}, subject: kernel.SubjectPath, what: []byte("x"),
			kind: event.KindFile, layer: "seccomp", code: "filter", target: "chmod x", says: "setuid"},
		{name: "chmod of another's file", call: "fchmodat", errno: unix.EPERM, args: [6]uint64{0, 0, 0o755}, subject: kernel.SubjectPath, what: []byte("x"),
			kind: event.KindFile, layer: "files", code: "files", target: "chmod x"},
		{name: "mount", call: "mount", errno: unix.EPERM, subject: kernel.SubjectPath, what: []byte("/mnt"),
			kind: event.KindFile, layer: "seccomp", code: "filter", target: "mount /mnt"},
		{name: "packet socket", call: "socket", errno: unix.EAFNOSUPPORT, args: [6]uint64{unix.AF_PACKET, unix.SOCK_RAW | unix.SOCK_CLOEXEC, 3},
			kind: event.KindKernelDenial, layer: "seccomp", code: "filter", target: "socket family=17 type=3 protocol=3"},
		{name: "unshare", call: "unshare", errno: unix.EPERM, args: [6]uint64{unix.CLONE_NEWUSER},
			kind: event.KindSyscall, layer: "seccomp", code: "filter", target: "system call unshare", says: "namespace"},
		{name: "clone3", call: "clone3", errno: unix.ENOSYS, subject: kernel.SubjectClone,
			kind: event.KindSyscall, layer: "seccomp", code: "unknown-call", target: "system call clone3"},
		{name: "setuid", call: "setuid", errno: unix.EPERM,
			kind: event.KindSyscall, layer: "capabilities", code: "no-right", target: "system call setuid"},
		{name: "a process of the host", call: "kill", errno: unix.ESRCH, args: [6]uint64{4711, 9},
			kind: event.KindSyscall, layer: "pidns", code: "no-such-process", target: "system call kill"},
		{name: "nobody else to signal", call: "kill", errno: unix.ESRCH, args: [6]uint64{0xffffffff, 9}, none: true},
		{name: "shared memory of the host", call: "shmget", errno: unix.ENOENT,
			kind: event.KindSyscall, layer: "ipcns", code: "no-such-object", target: "system call shmget"},
		{name: "docker", call: "connect", errno: unix.EACCES, subject: kernel.SubjectSockaddr, what: unixAddr("/var/run/docker.sock\x00junk"),
			kind: event.KindKernelDenial, layer: "files", code: "files", target: "unix /var/run/docker.sock"},
		{name: "abstract", call: "connect", errno: unix.ECONNREFUSED, subject: kernel.SubjectSockaddr, what: unixAddr("\x00bus"),
			kind: event.KindKernelDenial, layer: "netns", code: "own-loopback", target: "unix @bus", says: "nothing of the sandbox's own"},
		{name: "a service of the host", call: "connect", errno: unix.ECONNREFUSED, subject: kernel.SubjectSockaddr, what: inet(unix.AF_INET, []byte{127, 0, 0, 1}, 5432),
			kind: event.KindNetwork, layer: "netns", code: "own-loopback", target: "connect 127.0.0.1:5432", says: "the host's is out of reach"},
		{name: "the same over IPv6", call: "connect", errno: unix.ECONNREFUSED, subject: kernel.SubjectSockaddr, what: inet(unix.AF_INET6, append(make([]byte, 15), 1), 5432),
			kind: event.KindNetwork, layer: "netns", code: "own-loopback", target: "connect [::1]:5432"},
		{name: "refused by a server", call: "connect", errno: unix.ECONNREFUSED, subject: kernel.SubjectSockaddr, what: inet(unix.AF_INET, []byte{198, 18, 0, 9}, 443), none: true},
		{name: "a packet that the packet hook dropped", call: "sendto", errno: unix.EPERM, subject: kernel.SubjectSockaddr, what: inet(unix.AF_INET, []byte{198, 18, 0, 9}, 443),
			kind: event.KindNetwork, layer: "kernel", code: "dropped", target: "sendmsg 198.18.0.9:443"},
		{name: "on a connected socket", call: "sendmsg", errno: unix.EPERM,
			kind: event.KindSyscall, layer: "kernel", code: "dropped", target: "system call sendmsg"},
		{name: "low port", call: "bind", errno: unix.EACCES, subject: kernel.SubjectSockaddr, what: inet(unix.AF_INET, []byte{0, 0, 0, 0}, 80),
			kind: event.KindNetwork, layer: "capabilities", code: "no-right", target: "bind 0.0.0.0:80"},
		{name: "an address that could not be read", call: "connect", errno: unix.EACCES, subject: kernel.SubjectSockaddr,
			kind: event.KindKernelDenial, layer: "files", code: "files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &kernel.Refusal{Head: kernel.Head{PID: 7}, Call: number(t, c.call), Args: c.args, Errno: c.errno, Origin: kernel.Origin{Comm: "x"}, Subject: c.subject, What: c.what}
			e, ok := Event(r)
			if ok == c.none {
				t.Fatalf("a refusal: %v: %+v", ok, e)
			}
			if c.none {
				return
			}
			if e.Kind != c.kind || e.Layer != c.layer || e.ReasonCode != c.code || !e.IsDenial() || e.Status != uint32(c.errno) || e.PID != 7 {
				t.Errorf("%v %s %s: %+v", e.Kind, e.Layer, e.ReasonCode, e)
			}
			if c.target != "" && e.Target() != c.target {
				t.Errorf("target %q", e.Target())
			}
			if e.Reason == "" || !strings.Contains(e.Reason, c.says) {
				t.Errorf("reason %q", e.Reason)
			}
		})
	}
}

// Whatever the filter refuses is said to be the filter's, with its reason.
func TestEveryRuleOfTheFilterIsNamed(t *testing.T) {
	for _, rule := range seccomp.Rules(seccomp.Strict()) {
		for _, call := range rule.Calls {
			nr, ok := seccomp.Number(call)
			if !ok {
				continue
			}
			var args [6]uint64
			for _, c := range rule.When {
				for _, v := range append([]uint64{1, c.Mask, 0xffff}, c.Values...) {
					if c.Holds(v) {
						args[c.Arg] = v
					}
				}
			}
			if !rule.Matches(args) {
				continue // two conditions on one register
			}
			e, ok := Event(&kernel.Refusal{Call: nr, Args: args, Errno: unix.Errno(rule.Errno)})
			if !ok || e.Layer != "seccomp" {
				t.Errorf("%s%v: %+v", call, args, e)
			}
		}
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range groups {
		for call := range strings.FieldsSeq(g.calls) {
			if seen[call] {
				t.Errorf("%s has two rows", call)
			}
			seen[call] = true
		}
	}
	table := Table([]string{"/data/secrets"})
	if !table.Watch["/data/secrets"] || watched["/data/secrets"] {
		t.Error("the operator's paths are not watched, or leak into the table of all")
	}
	if c := table.Calls[number(t, "faccessat2")]; len(c.Errnos) != 0 {
		t.Errorf("a question is a refusal: %v", c)
	}
	for _, rule := range seccomp.Rules(seccomp.Strict()) {
		for _, call := range rule.Calls {
			nr, ok := seccomp.Number(call)
			if !ok {
				continue
			}
			c, own := table.Calls[nr]
			if !own {
				c = table.Others
			}
			if !slices.Contains(c.Errnos, unix.Errno(rule.Errno)) {
				t.Errorf("the filter answers %s with %v, and that is not recorded", call, rule.Errno)
			}
		}
	}
}

// Whatever a sandbox left in memory: an event or none, never a panic, and the
// event can be encoded and read again.
func FuzzEvent(f *testing.F) {
	f.Add(uint32(42), uint32(111), byte(2), inet(unix.AF_INET, []byte{127, 0, 0, 1}, 80))
	f.Add(uint32(42), uint32(13), byte(2), inet(unix.AF_INET6, make([]byte, 16), 80))
	f.Add(uint32(42), uint32(2), byte(2), unixAddr("\x00\x00"))
	f.Add(uint32(257), uint32(13), byte(1), []byte("/etc/shadow"))
	f.Add(uint32(435), uint32(38), byte(3), []byte{})
	f.Add(uint32(0x40000001), uint32(38), byte(0), []byte{})
	f.Fuzz(func(t *testing.T, call, errno uint32, subject byte, what []byte) {
		if len(what) > 255 {
			what = what[:255]
		}
		e, ok := Event(&kernel.Refusal{Call: call, Errno: unix.Errno(errno % 192), Subject: kernel.Subject(subject % 4), What: what})
		if !ok {
			return
		}
		if e.Reason == "" || e.Layer == "" || !e.Kind.Valid() || !e.IsDenial() {
			t.Errorf("%+v", e)
		}
		e.Normalise()
		line, err := e.AppendOCSF(nil, event.Node{UID: "n", Version: "v"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.ParseOCSF(line)
		if err != nil || got.Kind != e.Kind {
			t.Errorf("%v: %s", err, line)
		}
	})
}
