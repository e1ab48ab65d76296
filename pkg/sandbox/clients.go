// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// markAccepted gives each accepted connection of a namespace the mark that its
// client's socket had (Linux 3.16). It covers IPv6 too.
const markAccepted = "/proc/sys/net/ipv4/tcp_fwmark_accept"

// tellClients has the kernel tell the gateway which process is at the other end
// of a connection or sent a datagram: the programs put it into the mark (see
// bpf/client.h). Before Linux 5.19 datagrams do not bring theirs, and records
// about them name no process.
func (l *Listeners) tellClients(ns *os.File) error {
	err := inNetwork(ns, func() error { return os.WriteFile(markAccepted, []byte("1"), 0) })
	if err != nil {
		return fmt.Errorf("the gateway's records cannot name processes, since /proc/sys is not writable here (make it so): %w", err)
	}
	for _, f := range []*os.File{l.DNSUDP4, l.DNSUDP6, l.UDP4, l.UDP6} {
		if err := receiveMarks(f); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
			return err
		}
	}
	return nil
}

// receiveMarks has the kernel tell the mark of each datagram; ENOPROTOOPT before
// Linux 5.19.
func receiveMarks(f *os.File) error {
	if err := unix.SetsockoptInt(rawFD(f), unix.SOL_SOCKET, unix.SO_RCVMARK, 1); err != nil {
		return fmt.Errorf("marks of datagrams: %w", err)
	}
	return nil
}
