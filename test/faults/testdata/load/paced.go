// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// perSecond is how often a paced attempt is made.
const perSecond = 1000

var paced = map[string]func(netip.AddrPort) error{"flood": connectOnce, "datagrams": sendOnce}

// repeatPaced keeps to the clock: what was missed while the processor was
// elsewhere is made up for, up to a second of it.
func repeatPaced(try func(netip.AddrPort) error, target string, c *Count) {
	addr := netip.MustParseAddrPort(target)
	for next := time.Now(); ; next = next.Add(time.Second / perSecond) {
		if d := time.Until(next); d > 0 {
			time.Sleep(d)
		} else if d < -time.Second {
			next = time.Now()
		}
		c.note(try(addr))
	}
}

func blast(file, target string, c *Count) {
	addr := netip.MustParseAddrPort(target)
	for {
		if b, err := os.ReadFile(file); err == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
			if os.Remove(file) == nil {
				for range n {
					c.note(connectOnce(addr))
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func sockaddr(a netip.AddrPort) (int, syscall.Sockaddr) {
	if a.Addr().Is4() {
		return syscall.AF_INET, &syscall.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return syscall.AF_INET6, &syscall.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func connectOnce(a netip.AddrPort) error {
	family, to := sockaddr(a)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd) //nolint:errcheck // nothing was written
	return syscall.Connect(fd, to)
}

func sendOnce(a netip.AddrPort) error {
	family, to := sockaddr(a)
	fd, err := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd) //nolint:errcheck // nothing was written
	return syscall.Sendto(fd, []byte("out"), 0, to)
}
