// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// LooseSocket is an open descriptor of a running process through which data
// leaves that no program of the fence sees.
type LooseSocket struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"` // what the process says it is
	FD   int    `json:"fd"`   // -1: all of them
	What string `json:"what"`
	Why  string `json:"why"`

	inode uint64 // 0: no socket
}

func (l LooseSocket) String() string {
	if l.FD < 0 {
		return fmt.Sprintf("process %d (%s): %s", l.PID, l.Comm, l.Why)
	}
	return fmt.Sprintf("process %d (%s), descriptor %d: %s: %s", l.PID, l.Comm, l.FD, l.What, l.Why)
}

// Place names it for people.
func (l LooseSocket) Place() string {
	if l.FD < 0 {
		return fmt.Sprintf("descriptors of process %d", l.PID)
	}
	return fmt.Sprintf("descriptor %d of process %d", l.FD, l.PID)
}

// same says that it is what was told before, whatever the process calls itself
// by now and whatever became of the socket. One socket may be that of several
// processes, of which the first that a look comes to is named.
func (l LooseSocket) same(o LooseSocket) bool {
	if l.inode != 0 || o.inode != 0 {
		return l.inode == o.inode
	}
	return l.PID == o.PID && l.FD == o.FD && l.What == o.What
}

// maxLoose bounds how many are listed; the rest is counted.
const maxLoose = 500

// looseLook looks at every descriptor of the adopted processes. It duplicates
// each socket for a moment (pidfd_getfd, Linux 5.6), because nothing else tells
// which programs it meets.
type looseLook struct {
	number uint32
	unix   bool // unix sockets are open
	pids   []int
	hand   *hand        // copies the sockets
	hung   bool         // and did not come back from one of them
	held   *atomic.Bool // the list of unix sockets is not to be had, see kernel.UnixPeers
	bounds bounds
	seen   map[uint64]bool // by inode: workers share what their parent opened
	ends   []unixEnd       // connected unix sockets, to be settled at the end
	found  []LooseSocket
	more   int // found beyond maxLoose
}

// all looks at the processes in the given order until the bounds are reached;
// it returns how many it has been through.
func (l *looseLook) all(pids []int) (done int, err error) {
	for _, pid := range pids {
		if err := l.process(pid); err != nil {
			return done, fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
		if l.bounds.reached() {
			return done, nil
		}
		done++
	}
	return done, nil
}

// process looks at the descriptors of a thread that lives: until the thread
// lives afterwards too, they may have been none.
func (l *looseLook) process(pid int) error {
	for range changes {
		tid, err := livingThread(pid, &l.bounds)
		if err != nil || tid == 0 {
			return err
		}
		pidfd, err := openLiving(pid, tid)
		if errors.Is(err, unix.EINVAL) && tid != pid {
			l.add(pid, -1, "process", "its first thread has ended: its descriptors cannot be read before Linux 6.9", 0)
			return nil
		}
		if err == nil {
			err = eachDescriptor(threadDir(pid, tid), &l.bounds, func(n int, link string) error { return l.descriptor(pid, tid, pidfd, n, link) })
			unix.Close(pidfd)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) || l.bounds.reached() {
			return err
		}
		if _, err := statusOf(pid, tid); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	l.add(pid, -1, "process", "its threads end one after the other while they are looked at", 0)
	return nil
}

// eachDescriptor calls fn with each descriptor of a thread and what /proc says
// of it, as far as the bounds go.
func eachDescriptor(thread string, b *bounds, fn func(n int, link string) error) error {
	dir, err := os.Open(thread + "/fd")
	if gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH); gone {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			if !b.take() {
				return nil
			}
			link, err := os.Readlink(filepath.Join(dir.Name(), name))
			if err != nil {
				continue // closed meanwhile
			}
			if err := fn(n, link); err != nil {
				return err
			}
		}
	}
}

// devices and files of the kernel that carry packets.
var packetFiles = map[string]string{
	"anon_inode:[io_uring]": "io_uring: a ring may hold sockets that nobody can list",
	"/dev/net/tun":          "network device: packets written to it meet no program",
	"/dev/vhost-net":        "network device: packets written to it meet no program",
	"/dev/vhost-vsock":      "vsock device: what is written to it meets no program",
}

// socketLink reads how /proc names a socket.
func socketLink(link string) (inode uint64, ok bool) {
	_, err := fmt.Sscanf(link, "socket:[%d]", &inode)
	return inode, err == nil
}

// changes is how often a descriptor may be another one than a moment ago.
const changes = 3

func (l *looseLook) descriptor(pid, tid, pidfd, n int, link string) error {
	if why := packetFiles[link]; why != "" {
		l.add(pid, n, link, why, 0)
		return nil
	}
	inode, is := socketLink(link)
	if !is || l.seen[inode] {
		return nil
	}
	for range changes {
		seen, err := l.copied(pidfd, n, inode)
		if errors.Is(err, errHangs) {
			l.hung, l.bounds.cut = true, true
			l.add(pid, n, link, "looking at it does not end: the keeper's thread waits in the kernel", 0)
			return nil
		}
		if err != nil {
			return fmt.Errorf("descriptor %d: %w", n, err)
		}
		if seen.gone {
			return nil
		}
		if seen.very {
			l.judge(pid, n, inode, seen)
			return nil
		}
		// The number belongs to something else by now: look at that.
		link, err := os.Readlink(fmt.Sprintf("%s/fd/%d", threadDir(pid, tid), n))
		if err != nil {
			return nil
		}
		if why := packetFiles[link]; why != "" {
			l.add(pid, n, link, why, 0)
			return nil
		}
		if inode, is = socketLink(link); !is || l.seen[inode] {
			return nil
		}
	}
	l.add(pid, n, "descriptor", "it is another one each time it is looked at", 0)
	return nil
}

// copyLook is what a look at the copy of a descriptor found.
type copyLook struct {
	gone      bool // there was nothing to copy any more
	very      bool // it is the very socket that /proc named
	what, why string
	connected bool
}

// copied copies a descriptor, looks at the copy and closes it, all by the hand:
// each of these may wait for the process.
func (l *looseLook) copied(pidfd, n int, inode uint64) (copyLook, error) {
	var out copyLook
	var err error
	if hangs := l.hand.run(func() { out, err = l.lookAtCopy(pidfd, n, inode) }); hangs != nil {
		return copyLook{}, hangs
	}
	return out, err
}

// lookAtCopy asks the kernel for the copy's name first: what is no socket may
// be a file of a file system that the process serves.
func (l *looseLook) lookAtCopy(pidfd, n int, inode uint64) (out copyLook, err error) {
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return copyLook{gone: true}, nil // closed meanwhile
	}
	if err != nil {
		return out, err
	}
	defer unix.Close(fd)
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return out, err
	}
	if got, is := socketLink(link); !is || got != inode {
		return out, nil
	}
	out.very = true
	out.what, out.why, out.connected = l.socket(fd)
	return out, nil
}

// judge takes down what was found of a socket.
func (l *looseLook) judge(pid, n int, inode uint64, found copyLook) {
	l.seen[inode] = true
	switch {
	case found.connected:
		l.ends = append(l.ends, unixEnd{pid: pid, fd: n, inode: inode})
	case found.why != "":
		l.add(pid, n, found.what, found.why, inode)
	}
}

func (l *looseLook) add(pid, fd int, what, why string, inode uint64) {
	if len(l.found) == maxLoose {
		l.more++
		return
	}
	l.found = append(l.found, LooseSocket{PID: pid, Comm: commOf(pid), FD: fd, What: what, Why: why, inode: inode})
}

// families whose sockets no hook of a cgroup sees, by what is known of them.
var families = map[int]string{
	unix.AF_PACKET: "packet", unix.AF_NETLINK: "netlink", unix.AF_VSOCK: "vsock", unix.AF_XDP: "xdp", unix.AF_ALG: "alg",
	unix.AF_CAN: "can", unix.AF_TIPC: "tipc", unix.AF_BLUETOOTH: "bluetooth", unix.AF_KEY: "key", unix.AF_SMC: "smc",
}

// socket says what a socket is and why the fence does not hold it; why is ""
// when it does. connected says that this depends on who has the other end.
func (l *looseLook) socket(fd int) (what, why string, connected bool) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return "socket", "its family cannot be read: " + err.Error(), false
	}
	fenced := kernel.FencedBy(fd) == l.number
	switch domain {
	case unix.AF_INET, unix.AF_INET6:
		return inetSocket(fd), inetLoose(fd, fenced), false
	case unix.AF_UNIX:
		why, connected = l.unixSocket(fd, fenced)
		return "unix", why, connected
	}
	what = families[domain]
	if what == "" {
		what = "family " + strconv.Itoa(domain)
	}
	return what, "no hook of a cgroup sees this family", false
}

const madeElsewhere = "it was made outside of the cgroup and keeps the programs of where it was made"

// inetLoose: a raw socket cannot be made behind the fence, so it is from before.
func inetLoose(fd int, fenced bool) (why string) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case !fenced:
		return madeElsewhere
	case err != nil:
		return "its type cannot be read: " + err.Error()
	case typ == unix.SOCK_RAW:
		return "a raw socket from before: it reads what others in its network namespace get, and forges packets to where a rule lets it go directly"
	}
	return ""
}

func inetSocket(fd int) string {
	typ, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE) // what cannot be read is 0
	proto, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	what := map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_MPTCP: "mptcp", unix.IPPROTO_SCTP: "sctp"}[proto]
	if what == "" {
		what = fmt.Sprintf("ip type %d protocol %d", typ, proto)
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		what += " " + sockaddrText(sa)
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		what += " -> " + sockaddrText(sa)
	}
	return what
}

func sockaddrText(sa unix.Sockaddr) string {
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return "?"
}

// treePIDs lists the processes of a cgroup and of those below it. One whose
// first thread has ended is where its other threads are, and may be listed by
// them alone (cgroup.threads).
func treePIDs(path string) ([]int, error) {
	b := newBounds()
	var out []int
	threads := map[int]bool{}
	err := filepath.WalkDir(path, func(dir string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if !b.take() {
				return fs.SkipAll
			}
			var pids, tids []int
			pids, err = cgroupPIDs(dir)
			out = append(out, pids...)
			if err == nil {
				tids, err = cgroupList(dir, "cgroup.threads")
			}
			for _, tid := range tids {
				threads[tid] = true
			}
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // removed meanwhile
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s is a threaded cgroup: adopt the one above it that holds the whole processes", dir)
		}
		return err
	})
	if err == nil {
		out, err = withThreads(out, threads, &b)
	}
	if err == nil && b.reached() {
		err = fmt.Errorf("there are more than %d cgroups and threads, or reading them takes more than %s", lookDescriptors, lookTime)
	}
	if err != nil {
		return nil, fmt.Errorf("processes of the cgroup: %w", err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// withThreads adds the processes of threads that none of the listed ones has.
func withThreads(pids []int, threads map[int]bool, b *bounds) ([]int, error) {
	for _, pid := range pids {
		if delete(threads, pid); len(threads) == 0 {
			return pids, nil
		}
	}
	for _, pid := range pids {
		err := eachThread(pid, b, func(tid int) (bool, error) {
			delete(threads, tid)
			return false, nil
		})
		if err != nil {
			return nil, err
		}
	}
	for tid := range threads {
		if !b.take() {
			break
		}
		st, err := readStatus(tid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(st["Tgid"])
		if err != nil {
			return nil, fmt.Errorf("process of thread %d: %w", tid, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// oneNetwork opens the network namespace that all threads of the processes are
// in.
func oneNetwork(pids []int) (inode uint64, ns *os.File, err error) {
	b := newBounds()
	others := map[uint64]int{} // the first process of each
	for _, pid := range pids {
		err := eachThread(pid, &b, func(tid int) (bool, error) {
			all, err := namespacesOf(fmt.Sprintf("%d/task/%d", pid, tid))
			if errors.Is(err, fs.ErrNotExist) {
				return false, nil
			}
			if _, known := others[all["net"]]; err == nil && !known {
				others[all["net"]] = pid
			}
			return false, err
		})
		if err != nil {
			return 0, nil, err
		}
	}
	if b.reached() {
		return 0, nil, fmt.Errorf("the processes have more than %d threads, or reading their network namespaces takes more than %s", lookDescriptors, lookTime)
	}
	if len(others) != 1 {
		var list []string
		for ino, pid := range others {
			list = append(list, fmt.Sprintf("process %d in %d", pid, ino))
		}
		slices.Sort(list)
		return 0, nil, fmt.Errorf("the processes are in %d network namespaces (%s): adopt cgroups whose processes share one", len(others), strings.Join(list, ", "))
	}
	for ino, pid := range others {
		ns, err = openNetwork(pid, ino)
		inode = ino
	}
	return inode, ns, err
}

// openNetwork opens the namespace of a process if it is the expected one.
func openNetwork(pid int, inode uint64) (*os.File, error) {
	b := newBounds()
	tid, err := livingThread(pid, &b)
	if err != nil {
		return nil, err
	}
	ns, err := os.Open(threadDir(pid, tid) + "/ns/net")
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil || st.Ino != inode {
		ns.Close()
		return nil, errors.Join(err, fmt.Errorf("process %d changed its network namespace meanwhile", pid))
	}
	return ns, nil
}

// cgroupOfProcess returns the absolute path of a process's cgroup v2.
func cgroupOfProcess(root string, pid int) (string, error) { return cgroupOfThread(root, pid, pid) }

func cgroupOfThread(root string, pid, tid int) (string, error) {
	b, err := os.ReadFile(threadDir(pid, tid) + "/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return filepath.Join(root, p), nil
		}
	}
	return "", fmt.Errorf("process %d has no cgroup v2", pid)
}

// CgroupOf returns the cgroup v2 of a living process.
func CgroupOf(pid int) (string, error) {
	root, err := kernel.CgroupRoot()
	if err != nil {
		return "", err
	}
	p, err := ProcessOf(pid)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("there is no process %d", pid)
	}
	if err != nil {
		return "", err
	}
	path, err := cgroupOfProcess(root, pid)
	if err == nil && !p.Alive() {
		err = fmt.Errorf("process %d has ended", pid)
	}
	return path, err
}
