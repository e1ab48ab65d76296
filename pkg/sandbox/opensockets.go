// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// LooseSocket is an open descriptor of a running process through which data
// leaves that no program of the fence sees.
type LooseSocket struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"` // what the process says it is
	FD   int    `json:"fd"`
	What string `json:"what"`
	Why  string `json:"why"`

	inode uint64 // 0: no socket
}

func (l LooseSocket) String() string {
	return fmt.Sprintf("process %d (%s), descriptor %d: %s: %s", l.PID, l.Comm, l.FD, l.What, l.Why)
}

// maxLoose bounds how many are listed.
const maxLoose = 500

// looseSockets looks at every descriptor of every process. It duplicates each
// socket for a moment (pidfd_getfd, Linux 5.6), because nothing else tells which
// programs it meets.
func (s *Sandbox) looseSockets() ([]LooseSocket, error) {
	pids, err := treePIDs(s.Record.Cgroup)
	if err != nil {
		return nil, err
	}
	return s.looseOf(pids)
}

func (s *Sandbox) looseOf(pids []int) ([]LooseSocket, error) {
	look := looseLook{number: s.Record.Number, unix: s.Record.Unix, pids: pids, seen: map[uint64]bool{}}
	for _, pid := range pids {
		if err := look.process(pid); err != nil {
			return nil, fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
	}
	return look.found, nil
}

type looseLook struct {
	number uint32
	unix   bool // unix sockets are open
	pids   []int
	seen   map[uint64]bool // by inode: workers share what their parent opened
	found  []LooseSocket
}

func (l *looseLook) process(pid int) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(pidfd)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil || len(l.found) >= maxLoose {
			continue
		}
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if err := l.descriptor(pid, pidfd, n, link); err != nil {
			return err
		}
	}
	return nil
}

// devices and files of the kernel that carry packets.
var packetFiles = map[string]string{
	"anon_inode:[io_uring]": "io_uring: a ring may hold sockets that nobody can list",
	"/dev/net/tun":          "network device: packets written to it meet no program",
	"/dev/vhost-net":        "network device: packets written to it meet no program",
	"/dev/vhost-vsock":      "vsock device: what is written to it meets no program",
}

func (l *looseLook) descriptor(pid, pidfd, n int, link string) error {
	if why := packetFiles[link]; why != "" {
		l.add(pid, n, link, why, 0)
		return nil
	}
	var inode uint64
	if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err != nil || l.seen[inode] {
		return nil
	}
	fd, err := unix.PidfdGetfd(pidfd, n, 0)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ESRCH) {
		return nil // closed meanwhile
	}
	if err != nil {
		return fmt.Errorf("descriptor %d: %w", n, err)
	}
	defer unix.Close(fd)
	l.seen[inode] = true
	if what, why := l.socket(fd); why != "" {
		l.add(pid, n, what, why, inode)
	}
	return nil
}

func (l *looseLook) add(pid, fd int, what, why string, inode uint64) {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		comm = []byte("?")
	}
	l.found = append(l.found, LooseSocket{PID: pid, Comm: strings.TrimSpace(string(comm)), FD: fd, What: what, Why: why, inode: inode})
}

// families whose sockets no hook of a cgroup sees, by what is known of them.
var families = map[int]string{
	unix.AF_PACKET: "packet", unix.AF_NETLINK: "netlink", unix.AF_VSOCK: "vsock", unix.AF_XDP: "xdp", unix.AF_ALG: "alg",
	unix.AF_CAN: "can", unix.AF_TIPC: "tipc", unix.AF_BLUETOOTH: "bluetooth", unix.AF_KEY: "key", unix.AF_SMC: "smc",
}

// socket says what a socket is and why the fence does not hold it; why is ""
// when it does.
func (l *looseLook) socket(fd int) (what, why string) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return "socket", "its family cannot be read: " + err.Error()
	}
	fenced := kernel.FencedBy(fd) == l.number
	switch domain {
	case unix.AF_INET, unix.AF_INET6:
		what = inetSocket(fd)
		if !fenced {
			why = "it was made outside of the cgroup and keeps the programs of where it was made"
		}
		return what, why
	case unix.AF_UNIX:
		return "unix", l.unixSocket(fd, fenced)
	}
	what = families[domain]
	if what == "" {
		what = "family " + strconv.Itoa(domain)
	}
	return what, "no hook of a cgroup sees this family"
}

// unixSocket: one that is connected needs no hook any more, one that was made
// elsewhere meets none. Within the adopted processes both are harmless.
func (l *looseLook) unixSocket(fd int, fenced bool) (why string) {
	if l.unix {
		return ""
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
		return "" // others come to it
	}
	if _, err := unix.Getpeername(fd); err != nil {
		if fenced {
			return ""
		}
		return "it was made outside of the cgroup and keeps the programs of where it was made"
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil || cred.Pid <= 0 {
		return "it is connected to a process that is not known"
	}
	if slices.Contains(l.pids, int(cred.Pid)) {
		return ""
	}
	return fmt.Sprintf("it is connected to process %d outside of the cgroup", cred.Pid)
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

// treePIDs lists the processes of a cgroup and of those below it.
func treePIDs(path string) ([]int, error) {
	var out []int
	err := filepath.WalkDir(path, func(dir string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			var pids []int
			pids, err = cgroupPIDs(dir)
			out = append(out, pids...)
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // removed meanwhile
		}
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s is a threaded cgroup: adopt the one above it that holds the whole processes", dir)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("processes of the cgroup: %w", err)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// oneNetwork opens the network namespace that all processes are in.
func oneNetwork(pids []int) (inode uint64, ns *os.File, err error) {
	others := map[uint64]int{} // the first process of each
	for _, pid := range pids {
		all, err := namespacesOf(strconv.Itoa(pid))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		if _, known := others[all["net"]]; !known {
			others[all["net"]] = pid
		}
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
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
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
func cgroupOfProcess(root string, pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
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
