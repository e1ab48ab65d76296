// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// PID is the keeper's process id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Gateway is the running gateway process; ok is false when there is none.
func (n *Node) Gateway(t testing.TB) (p sandbox.Process, ok bool) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.RunDir, "gateway", "gateway.json"))
	if err != nil || json.Unmarshal(b, &p) != nil {
		return p, false
	}
	return p, p.Alive()
}

// KillGateway ends the gateway without warning and returns what it was.
func (n *Node) KillGateway(t testing.TB) sandbox.Process {
	t.Helper()
	p, ok := n.Gateway(t)
	if !ok {
		t.Fatal("no gateway runs")
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	return p
}

// FDs counts the open descriptors of a process.
func FDs(t testing.TB, pid int) int {
	t.Helper()
	e, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(e)
}

// OpenFiles lists what the descriptors of a process stand for, for messages.
func OpenFiles(pid int) map[string]int {
	out := map[string]int{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil {
			out[to]++
		}
	}
	return out
}

// Metrics reads the samples of /metrics, by name with labels.
func (n *Node) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(n.RunDir, "metrics.sock"))
		}}}
	resp, err := c.Get("http://metrics/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %d %v\n%s", resp.StatusCode, err, b)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		i := strings.LastIndexByte(line, ' ')
		if i < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[i+1:], 64); err == nil {
			out[line[:i]] = v
		}
	}
	return out
}

// Sandboxes is what ps says.
func (n *Node) Sandboxes(t testing.TB) []api.Sandbox {
	t.Helper()
	r := n.CLI(t, "ps", "--all", "-o", "json")
	if r.Code != 0 {
		t.Fatalf("ps: %s", r.Stderr)
	}
	var out []api.Sandbox
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil {
		t.Fatalf("ps: %v\n%s", err, r.Stdout)
	}
	return out
}

// Sandbox is the one of that name.
func (n *Node) Sandbox(t testing.TB, name string) api.Sandbox {
	t.Helper()
	for _, s := range n.Sandboxes(t) {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("ps does not list %q", name)
	return api.Sandbox{}
}
