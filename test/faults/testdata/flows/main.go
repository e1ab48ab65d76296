// SPDX-License-Identifier: Apache-2.0

// Command flows is a client inside a sandbox that is told what to do, one
// command a line, and says what came of it, one line each:
//
//	open ID ADDR   connect to an echo server; "ID open ADDR" or "ID refused KIND"
//	send ID N      send N bytes; "ID echoed N" when they are all back, unchanged
//	get ID URL     a request; "ID status N" with the headers, then as below
//	try ADDR       connect, one byte to and fro; "try ok" or "try refused KIND"
//
// When a connection ends it says "ID ended KIND", at once and unasked.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds every attempt: what hangs is a failure of its own kind.
const patience = 30 * time.Second

var (
	mu    sync.Mutex
	flows = map[string]*flow{}
)

func say(format string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Printf(format+"\n", args...)
}

func main() {
	sc := bufio.NewScanner(os.Stdin)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		switch {
		case len(f) == 3 && f[0] == "open":
			open(f[1], f[2])
		case len(f) == 3 && f[0] == "send":
			n, _ := strconv.Atoi(f[2])
			flows[f[1]].send(n)
		case len(f) == 3 && f[0] == "get":
			go get(f[1], f[2])
		case len(f) == 2 && f[0] == "try":
			if err := try(f[1]); err != nil {
				say("try refused %s", kind(err))
				continue
			}
			say("try ok")
		default:
			say("what? %q", sc.Text())
		}
	}
}

// kind is the error in one word.
func kind(err error) string {
	var no syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.Is(err, io.EOF):
		return "EOF"
	case errors.As(err, &no):
		switch no {
		case syscall.ECONNABORTED:
			return "ECONNABORTED"
		case syscall.ECONNRESET:
			return "ECONNRESET"
		case syscall.EACCES:
			return "EACCES"
		case syscall.ECONNREFUSED:
			return "ECONNREFUSED"
		}
		return strings.ReplaceAll(no.Error(), " ", "-")
	case errors.As(err, &dns):
		return "name"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	}
	return strings.ReplaceAll(err.Error(), " ", "-")
}

type flow struct {
	id   string
	conn net.Conn

	mu   sync.Mutex
	sent bytes.Buffer // and not back yet
	todo int
}

func open(id, addr string) {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		say("%s refused %s", id, kind(err))
		return
	}
	f := &flow{id: id, conn: c}
	flows[id] = f
	say("%s open %s", id, c.RemoteAddr())
	go f.read()
}

// read compares what comes back.
func (f *flow) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.conn.Read(buf)
		if n > 0 && !f.back(buf[:n]) {
			say("%s other bytes", f.id)
			return
		}
		if err != nil {
			say("%s ended %s", f.id, kind(err))
			return
		}
	}
}

func (f *flow) back(b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !bytes.Equal(f.sent.Next(len(b)), b) {
		return false
	}
	if f.sent.Len() == 0 {
		say("%s echoed %d", f.id, f.todo)
	}
	return true
}

func (f *flow) send(n int) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + n)
	}
	f.mu.Lock()
	f.sent.Write(b)
	f.todo = n
	f.mu.Unlock()
	_, _ = f.conn.Write(b) // its end is told by read
}

func get(id, url string) {
	resp, err := http.Get(url) //nolint:gosec // the test says which
	if err != nil {
		say("%s ended %s", id, kind(err))
		return
	}
	say("%s status %d", id, resp.StatusCode)
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil {
		err = io.EOF
	}
	say("%s ended %s", id, kind(err))
}

func try(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}
