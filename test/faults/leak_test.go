// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// held is everything that a daemon could fail to give back. Each is a count
// with its description.
type held map[string]int

func inventory(t *testing.T, n *node.Node) held {
	t.Helper()
	h := held{}
	gw, ok := n.Gateway(t)
	if !ok {
		t.Fatal("no gateway runs")
	}
	for who, pid := range map[string]int{"keeper": n.PID(), "gateway": gw.PID} {
		for kind, count := range kindsOfFiles(pid) {
			h[who+" descriptors: "+kind] = count
		}
		h[who+" processes below"] = children(pid)
	}
	cgroup := n.Cgroup(t)
	h["cgroups"] = entries(t, cgroup, func(d fs.DirEntry) bool { return d.IsDir() })
	h["pinned objects"] = entries(t, filepath.Join(n.RunDir, "bpf"), func(fs.DirEntry) bool { return true })
	h["files in the run directory"] = entries(t, n.RunDir, func(fs.DirEntry) bool { return true }) - h["pinned objects"]
	h["kept outputs"] = entries(t, filepath.Join(n.StateDir, "output"), func(fs.DirEntry) bool { return true })
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	h["mounts"] = strings.Count(string(mounts), n.Dir)
	h["processes in cgroups"] = processes(t, cgroup)
	for name, v := range n.Metrics(t) {
		if strings.HasPrefix(name, "ringfence_kernel_table_entries") || name == "ringfence_sandboxes" {
			h[name] = int(v)
		}
	}
	return h
}

var inode = regexp.MustCompile(`\[\d+\]$|\d+$`)

// kindsOfFiles counts descriptors by what they are, not by which. The user
// namespaces behind idmapped workspaces are a cache with a bound of its own.
func kindsOfFiles(pid int) map[string]int {
	out := map[string]int{}
	for name, c := range node.OpenFiles(pid) {
		kind := inode.ReplaceAllString(anySandbox.ReplaceAllString(name, "/sb-*"), "")
		if kind == "user:" {
			continue
		}
		if strings.Contains(kind, "/ns/") || strings.HasPrefix(kind, "/proc/") {
			kind = "/proc"
		}
		out[kind] += c
	}
	return out
}

func children(pid int) int {
	n := 0
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		n += len(strings.Fields(string(b)))
	}
	return n
}

func entries(t *testing.T, dir string, what func(fs.DirEntry) bool) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && what(d) {
			n++
		}
		return nil // what went away meanwhile is not there
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func processes(t *testing.T, cgroup string) int {
	t.Helper()
	n := 0
	_ = filepath.WalkDir(cgroup, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "cgroup.procs" {
			b, _ := os.ReadFile(p)
			n += len(strings.Fields(string(b)))
		}
		return nil
	})
	return n
}

// grown lists what there is more of than before.
func (h held) grown(before held) []string {
	var out []string
	for k, v := range h {
		if v > before[k]+slack(k) {
			out = append(out, fmt.Sprintf("%s: %d, were %d", k, v, before[k]))
		}
	}
	return out
}

// slack is for what goes up and down by itself: connections that are being
// closed, a segment of the event log.
func slack(k string) int {
	switch {
	case strings.Contains(k, "socket:"), strings.Contains(k, "pipe:"), strings.Contains(k, "pidfd"):
		return 2
	case strings.Contains(k, "descriptors: "):
		return 1
	}
	return 0
}

func statusField(pid int, name string) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(v)[0])
			return n
		}
	}
	return -1
}

// Sandboxes of every kind come and go, four at a time: some that run, some
// that are never established, some that are killed, some with policy and names
// of their own.
func TestNothingIsLeftOf200Sandboxes(t *testing.T) {
	w := newWorld(t)
	n := node.Start(t, w.options())
	ws := n.Workspace(t)
	own := filepath.Join(ws, "own.yaml")
	if err := os.WriteFile(own, []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: own}\nscope: org:local\negress:\n  - {id: a, allow: \"own.example:443\"}\n  - {id: b, allow: \"192.0.2.0/24:443\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(ws, "bad.yaml") // good by itself, and not for this sandbox
	if err := os.WriteFile(bad, []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: bad}\nscope: org:other\negress:\n  - {id: a, allow: \"own.example:443\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	kinds := []struct {
		args []string
		code int
	}{
		{[]string{"run", "-q", "--", "true"}, 0},
		{[]string{"run", "-q", "--profile", "coding", "--policy", own, "--", "sh", "-c", "getent hosts own.example echo.example >/dev/null; exit 4"}, 4},
		{[]string{"run", "-q", "--", "no-such-command"}, 127},
		{[]string{"run", "-q", "--", "sh", "-c", "sleep 100 & kill -9 $$"}, 137},
		{[]string{"run", "-q", "--policy", own, "--", "true"}, 0},
		{[]string{"run", "-q", "--policy", bad, "--", "true"}, 125},
		{[]string{"run", "-q", "--detach", "--", "sh", "-c", "echo out; sleep 100"}, 0},
	}
	run := func(i int) {
		k := kinds[i%len(kinds)]
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		cmd := n.Command(ctx, k.args...)
		cmd.Dir = ws
		r := node.Finish(t, cmd)
		if r.Code != k.code {
			t.Errorf("%v: exit %d, want %d: %s", k.args, r.Code, k.code, r.Stderr)
		}
		if id := strings.TrimSpace(r.Stdout); k.args[2] == "--detach" && r.Code == 0 {
			if s := n.CLI(t, "stop", "--timeout", "0s", id); s.Code != 0 {
				t.Errorf("stop: %d %s", s.Code, s.Stderr)
			}
		}
	}
	many := func(total int) {
		var wg sync.WaitGroup
		next := make(chan int)
		for range 4 {
			wg.Go(func() {
				for i := range next {
					run(i)
				}
			})
		}
		for i := range total {
			next <- i
		}
		close(next)
		wg.Wait()
	}
	many(28)
	settle(t, n)
	before := inventory(t, n)
	threads, rss := statusField(n.PID(), "Threads"), statusField(n.PID(), "VmRSS")
	gw, _ := n.Gateway(t)
	gwRSS := statusField(gw.PID, "VmRSS")
	began := time.Now()
	many(200)
	took := time.Since(began)
	settle(t, n)
	after := inventory(t, n)
	after["kept outputs"] = before["kept outputs"] // of ended sandboxes, for `logs`, with a bound of their own
	// The read-only images of a view are kept for each uid that was in use at
	// once (confine.Images): a bound, however many sandboxes there were.
	if images := "keeper descriptors: /"; after[images] <= 3*8 {
		after[images] = before[images]
	}
	for _, g := range after.grown(before) {
		t.Errorf("left behind: %s", g)
	}
	if now := statusField(n.PID(), "Threads"); now > threads+16 {
		t.Errorf("the keeper has %d threads, had %d", now, threads)
	}
	t.Logf("200 sandboxes in %s (%s each, four at a time); keeper %d kB (was %d), gateway %d kB (was %d)", took.Round(time.Millisecond),
		(took / 200).Round(time.Millisecond), statusField(n.PID(), "VmRSS"), rss, statusField(gw.PID, "VmRSS"), gwRSS)
	starts, stops := 0, 0
	for _, e := range n.Events(t) {
		switch e.Kind {
		case event.KindSandboxStart:
			starts++
		case event.KindSandboxStop:
			stops++
		case event.KindLoss:
			t.Logf("loss: %s", e.Compact(false))
		}
	}
	if starts != stops || starts < 150 {
		t.Errorf("the log tells of %d starts and %d ends", starts, stops)
	}
}

// settle waits until no sandbox is left.
// anySandbox is the name of a cgroup: the spare's is another one each time.
var anySandbox = regexp.MustCompile(`/sb-[0-9a-f]{8}`)

func settle(t *testing.T, n *node.Node) {
	t.Helper()
	eventually(t, "every sandbox but the spare is gone", func() bool {
		dirs, err := os.ReadDir(filepath.Join(n.RunDir, "sandboxes"))
		return err == nil && len(dirs) == 1 && n.Metrics(t)["ringfence_sandboxes"] == 0
	})
	time.Sleep(500 * time.Millisecond) // holders of output and connections end
}
