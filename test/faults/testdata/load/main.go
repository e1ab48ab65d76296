// SPDX-License-Identifier: Apache-2.0

// Load runs inside a sandbox: it repeats attempts until it is killed and keeps
// their counts in a file of the workspace, where the test reads them.
//
//	load FILE KIND:NAME:TARGET...
//
// Kinds: get, post (URL; 200 counts), tcp (host:port; a connection counts),
// echo (host:port; an echoed line on a connection of its own counts),
// stream (host:port; one echoed line on a connection that is kept counts),
// dns (name; an address that is not the refusal address counts), llm (base URL;
// an answered chat completion counts). flood and datagrams (ip:port) try a
// thousand times a second: a connection, or a datagram that the kernel takes,
// counts. blast (ip:port) connects as fast as it can, as often as the file
// NAME.go says once it is there.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Count is what came of one kind of attempt.
type Count struct {
	OK, Fail int64
	LastOK   time.Time
	LastFail time.Time
	MaxGap   time.Duration // longest time between two successes
	Last     string        // the last failure
	mu       sync.Mutex
}

func (c *Count) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if err != nil {
		c.Fail++
		c.LastFail, c.Last = now, err.Error()
		return
	}
	if c.OK++; !c.LastOK.IsZero() {
		c.MaxGap = max(c.MaxGap, now.Sub(c.LastOK))
	}
	c.LastOK = now
}

const patience = 10 * time.Second

func main() {
	counts := map[string]*Count{}
	for _, arg := range os.Args[2:] {
		kind, rest, _ := strings.Cut(arg, ":")
		name, target, _ := strings.Cut(rest, ":")
		c := counts[name]
		if c == nil {
			c = &Count{}
			counts[name] = c
		}
		if kind == "blast" {
			go blast(name+".go", target, c)
			continue
		}
		go repeat(kind, target, c)
	}
	for {
		write(os.Args[1], counts)
		time.Sleep(20 * time.Millisecond)
	}
}

func write(file string, counts map[string]*Count) {
	out := map[string]Count{}
	for n, c := range counts {
		c.mu.Lock()
		out[n] = Count{OK: c.OK, Fail: c.Fail, LastOK: c.LastOK, LastFail: c.LastFail, MaxGap: c.MaxGap, Last: c.Last}
		c.mu.Unlock()
	}
	b, err := json.Marshal(out)
	if err == nil {
		err = os.WriteFile(file+".new", b, 0o644)
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

func repeat(kind, target string, c *Count) {
	if kind == "stream" {
		for {
			c.note(stream(target, c))
			time.Sleep(10 * time.Millisecond)
		}
	}
	if try := paced[kind]; try != nil {
		repeatPaced(try, target, c)
		return
	}
	do := map[string]func(string) error{"get": get, "post": post, "tcp": tcp, "echo": echo, "dns": resolve, "llm": llm}[kind]
	if kind == "tcp" || kind == "echo" {
		target = numeric(target)
	}
	for {
		c.note(do(target))
		time.Sleep(25 * time.Millisecond)
	}
}

// numeric resolves the host of an address once: the connection is what is
// tried.
func numeric(addr string) string {
	for {
		if a, err := net.ResolveTCPAddr("tcp", addr); err == nil {
			return a.String()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

var client = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

func ask(method, url, body string) error {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer placeholder")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func get(url string) error  { return ask(http.MethodGet, url, "") }
func post(url string) error { return ask(http.MethodPost, url, "x") }

func llm(base string) error {
	return ask(http.MethodPost, base+"/v1/chat/completions", `{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}`)
}

func tcp(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	return c.Close()
}

func echo(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "x\n"); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 2))
	return err
}

func resolve(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		return err
	}
	if len(addrs) == 0 || addrs[0] == "198.18.0.2" {
		return fmt.Errorf("refused: %v", addrs)
	}
	return nil
}

// stall is how long a line of a stream may take: a machine that is slow is no
// connection that broke, which shows at once.
const stall = time.Minute

// stream counts echoed lines until the connection breaks.
func stream(addr string, c *Count) error {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for i := 0; ; i++ {
		if err := conn.SetDeadline(time.Now().Add(stall)); err != nil {
			return err
		}
		want := fmt.Sprintf("line %d\n", i)
		if _, err := io.WriteString(conn, want); err != nil {
			return err
		}
		if got, err := r.ReadString('\n'); err != nil {
			return err
		} else if got != want {
			return fmt.Errorf("got %q, want %q", got, want)
		}
		c.note(nil)
		time.Sleep(5 * time.Millisecond)
	}
}
