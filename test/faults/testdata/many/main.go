// SPDX-License-Identifier: Apache-2.0

// Command many is one of many clients: it opens TCP and UDP flows to echo
// servers, says in FILE.open that all of them work, and in FILE.ended, when the
// last one has ended, how and when each did. Then it stays: what the end of its
// sandbox costs is not what the end of its flows does.
//
//	many FILE FLOWS TCP-ADDRESS UDP-ADDRESS
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds the opening of a flow: many clients start at once.
const patience = 2 * time.Minute

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(file, flows string, addrs []string) error {
	n, err := strconv.Atoi(flows)
	if err != nil {
		return err
	}
	var conns []net.Conn
	for range n {
		for i, network := range []string{"tcp", "udp"} {
			c, err := open(network, addrs[i])
			if err != nil {
				return fmt.Errorf("%s %s: %w", network, addrs[i], err)
			}
			conns = append(conns, c)
		}
	}
	if err := os.WriteFile(file+".open", nil, 0o644); err != nil {
		return err
	}
	ends := make([]string, len(conns))
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { ends[i] = end(c) })
	}
	wg.Wait()
	if err := os.WriteFile(file+".new", []byte(strings.Join(ends, "\n")), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file+".ended"); err != nil {
		return err
	}
	for {
		time.Sleep(time.Hour)
	}
}

// open makes a flow and sees one byte come back. A datagram may be lost.
func open(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; {
		if _, err := c.Write([]byte("x")); err != nil {
			return nil, err
		}
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := io.ReadFull(c, make([]byte, 1))
		if err == nil {
			return c, c.SetReadDeadline(time.Time{})
		}
		if network != "udp" || !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
			return nil, err
		}
	}
}

// end waits for the end of a flow: "NETWORK UNIX-NANOSECONDS KIND".
func end(c net.Conn) string {
	var err error
	for err == nil {
		_, err = c.Read(make([]byte, 1)) // echoes of what was sent twice come late
	}
	kind := "other: " + err.Error()
	for no, name := range map[syscall.Errno]string{syscall.ECONNABORTED: "ECONNABORTED", syscall.ECONNRESET: "ECONNRESET", syscall.EACCES: "EACCES", syscall.ECONNREFUSED: "ECONNREFUSED"} {
		if errors.Is(err, no) {
			kind = name
		}
	}
	return fmt.Sprintf("%s %d %s", c.RemoteAddr().Network(), time.Now().UnixNano(), kind)
}
