// SPDX-License-Identifier: Apache-2.0

// Command datagramgo is a client inside a sandbox that is told what to do with
// datagrams, one command a line, and says what came of it, one line each:
//
//	conn ID NET ADDR     a connected socket: "ID open LOCAL" or "ID failed KIND"
//	sock ID NET LOCAL    an unconnected one; LOCAL is "-" or an address
//	ask ID TEXT          connected: send, wait for an answer
//	to ID ADDR TEXT      unconnected: the same
//	send ID ADDR TEXT    send only: "ID sent" or "ID failed KIND"
//	big ID N             connected: N bytes there and the same back: "ID back N"
//	crowd N NET ADDR     N sockets at once, one answer each: "N answered OK refused REFUSED"
//
// An answer is "ID said TEXT from ADDR", a failure "ID failed KIND".
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience bounds every wait for an answer.
const patience = 15 * time.Second

var sockets = map[string]*net.UDPConn{}

func main() {
	for sc := bufio.NewScanner(os.Stdin); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 3 {
			fmt.Printf("what? %q\n", sc.Text())
			continue
		}
		if err := run(f[0], f[1], f[2:]); err != nil {
			fmt.Printf("%s failed %s\n", f[1], kind(err))
		}
	}
}

func run(verb, id string, args []string) error {
	switch c := sockets[id]; {
	case verb == "conn" && len(args) == 2:
		d, err := net.Dial(args[0], args[1])
		if err != nil {
			return err
		}
		return keep(id, d.(*net.UDPConn))
	case verb == "sock" && len(args) == 2:
		var local *net.UDPAddr
		if args[1] != "-" {
			a, err := netip.ParseAddrPort(args[1])
			if err != nil {
				return err
			}
			local = net.UDPAddrFromAddrPort(a)
		}
		d, err := net.ListenUDP(args[0], local)
		if err != nil {
			return err
		}
		return keep(id, d)
	case verb == "crowd" && len(args) == 2:
		return crowd(id, args[0], args[1])
	case c == nil:
		return errors.New("no such socket")
	case verb == "ask":
		if _, err := c.Write([]byte(args[0])); err != nil {
			return err
		}
		return answer(id, c)
	case (verb == "to" || verb == "send") && len(args) == 2:
		a, err := net.ResolveUDPAddr("udp", args[0])
		if err != nil {
			return err
		}
		if _, err := c.WriteToUDP([]byte(args[1]), a); err != nil {
			return err
		}
		if verb == "to" {
			return answer(id, c)
		}
		fmt.Printf("%s sent\n", id)
	case verb == "big":
		return big(id, c, args[0])
	default:
		return errors.New("no such command")
	}
	return nil
}

func keep(id string, c *net.UDPConn) error {
	sockets[id] = c
	fmt.Printf("%s open %s\n", id, c.LocalAddr())
	return nil
}

func answer(id string, c *net.UDPConn) error {
	buf := make([]byte, 1<<16)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		return err
	}
	fmt.Printf("%s said %s from %s\n", id, buf[:n], from)
	return nil
}

func big(id string, c *net.UDPConn, size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	b, back := make([]byte, n), make([]byte, 1<<16)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got, err := c.Read(back)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, back[:got]) {
		return fmt.Errorf("%d other bytes", got)
	}
	fmt.Printf("%s back %d\n", id, got)
	return nil
}

func crowd(count, network, addr string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	answered, refused := 0, 0
	buf := make([]byte, 1<<16)
	for range n {
		c, err := net.Dial(network, addr)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // all of them are open at once
		if _, err = c.Write([]byte("x")); err == nil {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			_, err = c.Read(buf)
		}
		switch {
		case err == nil:
			answered++
		case errors.Is(err, syscall.EHOSTUNREACH):
			refused++
		default:
			return err
		}
	}
	fmt.Printf("%s answered %d refused %d\n", count, answered, refused)
	return nil
}

// kind is the error in one word.
func kind(err error) string {
	var no syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.As(err, &no):
		for name, n := range map[string]syscall.Errno{"EACCES": syscall.EACCES, "EPERM": syscall.EPERM, "ECONNREFUSED": syscall.ECONNREFUSED,
			"ECONNABORTED": syscall.ECONNABORTED, "EHOSTUNREACH": syscall.EHOSTUNREACH, "EMSGSIZE": syscall.EMSGSIZE, "EDESTADDRREQ": syscall.EDESTADDRREQ} {
			if no == n {
				return name
			}
		}
	case errors.As(err, &dns):
		return "name"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "-")
}
