// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offering is a process that a neighbour attacks: whatever two processes of one
// machine can share is there, and what reaches it is written down.
type offering struct {
	noticed string            // file with a line for each thing that happened
	params  map[string]string // KEY=VALUE of the attempts program
	undo    []func()
	mu      sync.Mutex // one line at a time
}

// offer makes everything, writes the parameters to a file when it is there,
// and takes it away when standard input ends. What happens is in FILE.noticed.
func offer(file string) error {
	unique := strings.ToLower(rand.Text()[:10])
	o := &offering{noticed: file + ".noticed", params: map[string]string{"pid": fmt.Sprint(os.Getpid())}}
	if err := os.WriteFile(o.noticed, nil, 0o644); err != nil {
		return err
	}
	defer func() {
		for i := len(o.undo) - 1; i >= 0; i-- {
			o.undo[i]()
		}
	}()
	for _, step := range []func(string) error{o.signals, o.network, o.sockets, o.systemV, o.queue, o.files} {
		if err := step(unique); err != nil {
			return err
		}
	}
	b, err := json.Marshal(o.params)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (o *offering) happened(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := os.OpenFile(o.noticed, os.O_APPEND|os.O_WRONLY, 0)
	check(err)
	defer f.Close()
	_, err = fmt.Fprintln(f, what)
	check(err)
}

func (o *offering) signals(string) error {
	c := make(chan os.Signal, 64)
	signal.Notify(c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR)
	go func() {
		for s := range c {
			o.happened("signal " + unix.SignalName(s.(syscall.Signal)))
		}
	}()
	return nil
}

// serve notes every connection.
func (o *offering) serve(what string, l net.Listener) {
	o.undo = append(o.undo, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.happened(what)
			go func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
}

func (o *offering) receive(what string, c net.PacketConn) {
	o.undo = append(o.undo, func() { c.Close() })
	go func() {
		for b := make([]byte, 512); ; {
			if _, _, err := c.ReadFrom(b); err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			o.happened(what)
		}
	}()
}

func (o *offering) network(string) error {
	l, err := net.Listen("tcp", ":0") //nolint:gosec // every address of a namespace without interfaces, or of the test's own
	if err != nil {
		return err
	}
	o.serve("tcp", l)
	port := l.Addr().(*net.TCPAddr).Port
	o.params["port"] = fmt.Sprint(port)
	c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	o.receive("udp", c)
	return nil
}

func (o *offering) sockets(unique string) error {
	for key, name := range map[string]string{"unix": "/tmp/neighbour-" + unique + ".sock", "abstract": "@neighbour-" + unique} {
		l, err := net.Listen("unix", name)
		if err != nil {
			return err
		}
		o.serve(key, l)
		o.params[key] = name
	}
	for key, name := range map[string]string{"unixdgram": "/tmp/neighbour-" + unique + ".dgram", "abstractdgram": "@neighbour-" + unique + "-d"} {
		c, err := net.ListenPacket("unixgram", name)
		if err != nil {
			return err
		}
		o.receive(key, c)
		o.params[key] = name
		if name[0] != '@' {
			o.undo = append(o.undo, func() { os.Remove(name) })
		}
	}
	return nil
}

// systemV makes a memory segment, a message queue and a semaphore of one key.
func (o *offering) systemV(string) error {
	key := uintptr(unix.Getpid())<<12 | 0x45530001&0x7fffffff
	o.params["key"] = fmt.Sprint(key)
	const create = unix.IPC_CREAT | unix.IPC_EXCL | 0o666
	shm, _, e1 := unix.Syscall(unix.SYS_SHMGET, key, 4096, create)
	msg, _, e2 := unix.Syscall(unix.SYS_MSGGET, key, create, 0)
	sem, _, e3 := unix.Syscall(unix.SYS_SEMGET, key, 1, create)
	for _, e := range []syscall.Errno{e1, e2, e3} {
		if e != 0 {
			return fmt.Errorf("system V objects: %w", e)
		}
	}
	o.undo = append(o.undo, func() { // the objects of a sandbox go with it anyway
		_, _, _ = unix.Syscall(unix.SYS_SHMCTL, shm, unix.IPC_RMID, 0)
		_, _, _ = unix.Syscall(unix.SYS_MSGCTL, msg, unix.IPC_RMID, 0)
		_, _, _ = unix.Syscall(unix.SYS_SEMCTL, sem, 0, unix.IPC_RMID)
	})
	return nil
}

func (o *offering) queue(unique string) error {
	name := "neighbour-" + unique
	ptr, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(ptr)), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o666, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("message queue: %w", e)
	}
	o.params["mq"] = name
	o.undo = append(o.undo, func() {
		unix.Close(int(fd))
		_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(ptr)), 0, 0)
	})
	return nil
}

func (o *offering) files(unique string) error {
	home := os.Getenv("HOME")
	for key, path := range map[string]string{
		"tmpfile": "/tmp/neighbour-" + unique, "shmfile": "/dev/shm/neighbour-" + unique, "secretdotdot": "/var/tmp/neighbour-" + unique,
		"secret": filepath.Join(home, "neighbour-"+unique), "secretproc": "/proc/self/root" + filepath.Join(home, "neighbour-"+unique),
	} {
		o.params[key] = path
		if key == "secretproc" {
			continue
		}
		if err := os.WriteFile(path, []byte("private\n"), 0o666); err != nil {
			return err
		}
		o.undo = append(o.undo, func() { os.Remove(path) })
	}
	return nil
}
