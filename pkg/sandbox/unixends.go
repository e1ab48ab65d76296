// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// unixEnd is a connected unix socket of an adopted process: it meets no hook
// any more. It is harmless if its other end is held by adopted processes and by
// nobody else.
type unixEnd struct {
	pid, fd int
	inode   uint64
}

// unixSocket says why a unix socket is outside of the fence; connected leaves
// that to who has its other end.
func (l *looseLook) unixSocket(fd int, fenced bool) (why string, connected bool) {
	if l.unix {
		return "", false
	}
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
		return "", false // others come to it
	}
	if _, err := unix.Getpeername(fd); err != nil {
		if fenced {
			return "", false
		}
		return madeElsewhere, false
	}
	poll := []unix.PollFd{{Fd: int32(fd)}}
	if n, err := unix.Poll(poll, 0); err == nil && n == 1 && poll[0].Revents&unix.POLLHUP != 0 {
		return "", false // the other end is closed
	}
	return "", true
}

// settleIn is settle with the namespaces in which the sockets may have been
// made; it closes them.
func (l *looseLook) settleIn(networks []*os.File) error {
	defer func() {
		for _, ns := range networks {
			ns.Close()
		}
	}()
	return l.settle(networks)
}

// settle judges the connected unix sockets by their other ends. SO_PEERCRED
// does not help: it names who made a pair, or who listened, not who holds it.
func (l *looseLook) settle(networks []*os.File) error {
	if len(l.ends) == 0 {
		return nil
	}
	peers := map[uint64]uint64{}
	for _, ns := range networks { // a unix socket is listed in the namespace it was made in
		of, err := kernel.UnixPeers(int(ns.Fd()), l.held)
		if err != nil {
			return err
		}
		maps.Copy(peers, of)
	}
	wanted := map[uint64]bool{}
	for _, e := range l.ends {
		if peer := peers[e.inode]; peer != 0 {
			wanted[peer] = true
		}
	}
	outside, err := l.outside(wanted)
	if err != nil {
		return err
	}
	for _, e := range l.ends {
		peer := peers[e.inode]
		holder, out := outside[peer]
		switch {
		case peer == 0:
			l.add(e.pid, e.fd, "unix", "nobody shows the socket that it is connected to", e.inode)
		case out && l.seen[peer]:
			l.add(e.pid, e.fd, "unix", fmt.Sprintf("its other end is held by process %d outside of the cgroup too", holder), e.inode)
		case out:
			l.add(e.pid, e.fd, "unix", fmt.Sprintf("it is connected to process %d outside of the cgroup", holder), e.inode)
		case !l.seen[peer]:
			l.add(e.pid, e.fd, "unix", "it is connected to a socket that no process shows", e.inode)
		}
	}
	return nil
}

// outside finds which of the sockets are held by processes of the machine that
// were not adopted, and by which. The keeper's own are copies of a moment.
func (l *looseLook) outside(wanted map[uint64]bool) (map[uint64]int, error) {
	out := map[uint64]int{}
	if len(wanted) == 0 {
		return out, nil
	}
	others, err := otherProcesses()
	if err != nil {
		return nil, err
	}
	b := bounds{left: outsideDescriptors, until: time.Now().Add(lookTime)}
	for _, pid := range others {
		if _, adopted := slices.BinarySearch(l.pids, pid); adopted {
			continue
		}
		tid, err := livingThread(pid, &b)
		if err != nil {
			return nil, fmt.Errorf("threads of process %d: %w", pid, err)
		}
		err = eachDescriptor(threadDir(pid, tid), &b, func(_ int, link string) error {
			if inode, is := socketLink(link); is && wanted[inode] {
				out[inode] = pid
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("descriptors of process %d: %w", pid, err)
		}
		if b.reached() {
			l.bounds.cut = true
			break
		}
	}
	return out, nil
}
