// SPDX-License-Identifier: Apache-2.0

// Package world is the outside that escape attempts reach for: services,
// files, processes and kernel objects of a user on the host. It hands out what
// an attempt needs to know of it ([World.Params]) and notices when something of
// it was touched ([World.Effects]).
package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
)

// Options of a world.
type Options struct {
	Dir       string // an empty directory, reachable for UID; the world's files live below it
	Attempts  string // the attempts program
	UID, GID  int    // whose world it is
	DNSPort   int    // 0 = any port; 53 shows more, if it is free
	WellKnown bool   // listen on ports 443 (UDP) and 853 (TCP) too, if they are free
}

// World is a running outside. Close ends it.
type World struct {
	Params map[string]string // KEY=VALUE parameters of the attempts program

	opts    Options
	closers []func() error
	victims []*exec.Cmd

	mu      sync.Mutex // guards what follows
	effects map[string]int
	wait    sync.WaitGroup
}

// Start builds a world.
func Start(o Options) (*World, error) {
	w := &World{Params: map[string]string{}, opts: o, effects: map[string]int{}}
	for _, step := range []func() error{w.network, w.files, w.sockets, w.kernelObjects, w.Reset} {
		if err := step(); err != nil {
			return nil, errors.Join(fmt.Errorf("world: %w", err), w.Close())
		}
	}
	pid, err := w.Victim()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("world: victim: %w", err), w.Close())
	}
	w.Params["hostpid"] = fmt.Sprint(pid)
	return w, nil
}

// Close ends the world and waits for its goroutines and processes.
func (w *World) Close() error {
	var errs []error
	for i := len(w.closers) - 1; i >= 0; i-- {
		errs = append(errs, w.closers[i]())
	}
	for _, v := range w.victims {
		_ = v.Process.Kill() // it may be gone: that is what attempts are for
		_ = v.Wait()
	}
	w.wait.Wait()
	return errors.Join(errs...)
}

// Args are the parameters as arguments, with some replaced.
func (w *World) Args(replace map[string]string) []string {
	var out []string
	for k, v := range w.Params {
		if _, ok := replace[k]; !ok {
			out = append(out, k+"="+v)
		}
	}
	for k, v := range replace {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return out
}

// Effects lists what was touched since the last call: "tcp", "udp", "dns",
// "unix", "file changed: PATH" and the like. Services notice on their own
// time: give them a moment.
func (w *World) Effects() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for k, n := range w.effects {
		out = append(out, fmt.Sprintf("%s (%d)", k, n))
	}
	w.effects = map[string]int{}
	out = append(out, w.changed()...)
	sort.Strings(out)
	return out
}

func (w *World) noticed(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.effects[what]++
}

func (w *World) path(rel string) string { return filepath.Join(w.opts.Dir, rel) }

// accept serves a stream listener until it is closed: whoever writes the proof
// was there.
func (w *World) accept(what string, l net.Listener) {
	w.closers = append(w.closers, l.Close)
	w.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wait.Go(func() {
				defer c.Close()
				b, err := io.ReadAll(io.LimitReader(c, 64))
				if err == nil && strings.Contains(string(b), "escaped") {
					w.noticed(what)
				}
			})
		}
	})
}

// receive serves a datagram socket until it is closed.
func (w *World) receive(what string, c net.PacketConn, answer func(q []byte) []byte) {
	w.closers = append(w.closers, c.Close)
	w.wait.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			w.noticed(what)
			if answer != nil {
				_, _ = c.WriteTo(answer(buf[:n]), from) // a lost answer is a lost answer
			}
		}
	})
}

func (w *World) network() error {
	tcp, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	w.accept("tcp", tcp)
	port := tcp.Addr().(*net.TCPAddr).Port
	w.Params["port"] = fmt.Sprint(port)
	udp, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	w.receive("udp", udp, nil)
	dns, err := net.ListenPacket("udp", fmt.Sprintf(":%d", w.opts.DNSPort))
	if err != nil {
		return err
	}
	w.Params["dnsport"] = fmt.Sprint(dns.LocalAddr().(*net.UDPAddr).Port)
	w.receive("dns", dns, answerDNS)
	if !w.opts.WellKnown {
		return nil
	}
	quic, err := net.ListenPacket("udp", ":443")
	if err != nil {
		return err
	}
	w.receive("quic", quic, nil)
	dot, err := net.Listen("tcp", ":853")
	if err != nil {
		return err
	}
	w.accept("dot", dot)
	return nil
}

// answerDNS answers any question with a TXT record that only we know.
func answerDNS(q []byte) []byte {
	if len(q) < 12 {
		return nil
	}
	text := "proof-of-escape"
	a := append([]byte(nil), q...)
	a[2], a[3], a[7] = 0x81, 0x80, 1
	a = append(a, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, byte(len(text)+1), byte(len(text)))
	return append(a, text...)
}

// own gives a path to the user of the world.
func (w *World) own(path string) error { return os.Lchown(path, w.opts.UID, w.opts.GID) }

// Victim starts a process of the world's user that holds descriptor 3.
func (w *World) Victim() (int, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	cmd := exec.Command(w.path("victim"), "--helper", "victim")
	cmd.ExtraFiles = []*os.File{null}
	cmd.Dir = w.path("home")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.opts.UID), Gid: uint32(w.opts.GID)}}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr = nil
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	w.victims = append(w.victims, cmd)
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		return 0, fmt.Errorf("victim: %w", err)
	}
	return cmd.Process.Pid, nil
}

// VictimAlive says whether the process that "hostpid" names goes on.
func (w *World) VictimAlive() bool {
	b, err := os.ReadFile("/proc/" + w.Params["hostpid"] + "/stat")
	_, after, ok := strings.Cut(string(b), ") ")
	return err == nil && ok && after[0] != 'Z' && after[0] != 'T'
}
