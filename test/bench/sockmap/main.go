// SPDX-License-Identifier: Apache-2.0

// Command sockmap is a relay of streams in the kernel, to compare with
// splice(2): an sk_skb verdict program sends what arrives at one socket out at
// the other. It is an experiment of the benchmarks and no part of the product:
// the kernel takes what a socket receives off its hands whether or not the
// other one can send, and the end of a stream does not go along, so this
// program watches counters to see when the last byte is out. Downloads pass;
// of uploads whose sender ends its side and waits for an answer the kernel
// broke some with EPIPE (seen on 6.18).
//
//	sockmap LISTEN TARGET
package main

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sockmap LISTEN TARGET")
		os.Exit(1)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "sockmap:", err)
		os.Exit(1)
	}
}

// pair is the key of a socket: its ports as the program sees them.
type pair struct{ Remote, Local uint32 }

// load makes a table that holds for each socket the one that what it receives
// goes to.
func load() (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockHash, KeySize: 8, ValueSize: 8, MaxEntries: 4096})
	if err != nil {
		return nil, err
	}
	const remotePort, localPort = 132, 136 // in struct __sk_buff
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SkSKB, AttachType: ebpf.AttachSkSKBStreamVerdict, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, remotePort, asm.Word),
			asm.StoreMem(asm.RFP, -8, asm.R2, asm.Word),
			asm.LoadMem(asm.R2, asm.R1, localPort, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R2, asm.Word),
			asm.LoadMapPtr(asm.R2, m.FD()),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 0), // out at the other socket
			asm.FnSkRedirectHash.Call(),
			asm.Return(),
		}})
	if err != nil {
		return nil, err
	}
	return m, link.RawAttachProgram(link.RawAttachProgramOptions{Target: m.FD(), Program: p, Attach: ebpf.AttachSkSKBStreamVerdict})
}

func serve(listen, target string) error {
	m, err := load()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp4", listen)
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = ln.Close()
	}()
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() { _ = relay(m, c.(*net.TCPConn), target) }() // who counts the bytes tells
	}
}

func relay(m *ebpf.Map, c *net.TCPConn, target string) error {
	defer c.Close()
	u, err := net.Dial("tcp4", target)
	if err != nil {
		return err
	}
	up := u.(*net.TCPConn)
	defer up.Close()
	if err := errors.Join(put(m, c, up), put(m, up, c)); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- forward(up, c) }()
	err = forward(c, up)
	return errors.Join(err, <-done)
}

// put sends what from receives to to.
func put(m *ebpf.Map, from, to *net.TCPConn) error {
	key := pair{bits.ReverseBytes32(uint32(from.RemoteAddr().(*net.TCPAddr).Port)), uint32(from.LocalAddr().(*net.TCPAddr).Port)}
	raw, err := to.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = m.Put(key, uint64(fd)) })
	return errors.Join(err, failed)
}

// forward waits for the end of from; what had arrived before the sockets were
// in the table it moves itself.
func forward(to, from *net.TCPConn) error {
	if _, err := io.Copy(to, struct{ io.Reader }{from}); err != nil {
		return err
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		in, _ := counters(from)
		if _, out := counters(to); out >= in-1 { // the end counts as a byte
			break
		}
		if time.Since(start) > 5*time.Second {
			return errors.New("bytes stay behind the end of their stream")
		}
	}
	return to.CloseWrite()
}

func counters(c *net.TCPConn) (received, acked uint64) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			received, acked = info.Bytes_received, info.Bytes_acked
		}
	})
	return received, acked
}
