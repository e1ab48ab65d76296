// SPDX-License-Identifier: Apache-2.0

// Package docs runs what the documentation shows. Every fenced block of
// README.md and docs/*.md says in its info string what it is:
//
//	console              lines that begin with "$ " are run by bash, one after
//	                     the other, against a real daemon that serves the whole
//	                     page; a command goes on in the next line after "\".
//	                     The lines below it must be found in its output (both
//	                     streams), in this order, each somewhere in a line;
//	                     "..." within a line stands for anything, alone for any
//	                     lines. "(exit N)" as the last line is its exit code;
//	                     without it the command must succeed.
//	sh                   one script for bash -e
//	yaml                 with apiversion ringfence.dev: must parse and compile;
//	                     a line "# error: TEXT" says that it must fail so
//	yaml whole           the same, also with what does not come into force yet
//	decisions            what the documents of the yaml block before decide, one
//	                     question and answer on a line; see decisions_test.go
//	yaml file=NAME       the same, and written to NAME in the working directory
//	yaml policy=NAME     the same, and put into the daemon's policy directory
//	yaml config          must be read as the daemon's configuration
//	json event           one record of the event log, however it is broken
//	text                 neither checked nor run
//
// "norun=WHY" on console and sh leaves a block out; WHY is one of whyNot, and
// the test counts and lists what was left out.
package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
	"github.com/ringfence/ringfence/test/node"
)

// whyNot are the reasons for not running a block.
var whyNot = map[string]string{
	"takes-minutes":               "other jobs of CI run it",
	"the-test-has-its-own-daemon": "starts a daemon",
	"needs-the-internet":          "tests run without it",
	"needs-an-api-key":            "a real provider or a log-in",
	"installs-packages":           "changes the machine",
	"changes-the-machine":         "installs, or edits what belongs to the machine",
}

// block is one fenced block.
type block struct {
	file string
	line int // of the fence
	lang string
	info map[string]string // words behind the language; "" for a word alone
	body []string
}

func (b *block) at() string   { return fmt.Sprintf("%s:%d", b.file, b.line) }
func (b *block) text() string { return strings.Join(b.body, "\n") + "\n" }

// pages lists what is written by hand.
func pages(t *testing.T) []string {
	t.Helper()
	docs, err := filepath.Glob(filepath.Join(node.Root(), "docs", "*.md"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("no docs: %v", err)
	}
	return append([]string{filepath.Join(node.Root(), "README.md")}, docs...)
}

func blocksOf(t *testing.T, path string) []*block {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*block
	var open *block
	for i, line := range strings.Split(string(raw), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && line == "```":
			out, open = append(out, open), nil
		case open != nil:
			open.body = append(open.body, line)
		case isFence:
			open = &block{file: filepath.Base(path), line: i + 1, info: map[string]string{}}
			words := strings.Fields(fence)
			if len(words) == 0 {
				t.Fatalf("%s: a fence without a language", open.at())
			}
			open.lang = words[0]
			for _, w := range words[1:] {
				k, v, _ := strings.Cut(w, "=")
				open.info[k] = v
			}
		}
	}
	if open != nil {
		t.Fatalf("%s: the fence is not closed", open.at())
	}
	return out
}

func TestDocuments(t *testing.T) {
	var left []string
	for _, path := range pages(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			p := &page{t: t}
			for _, b := range blocksOf(t, path) {
				if why, ok := b.info["norun"]; ok {
					if whyNot[why] == "" {
						t.Errorf("%s: norun=%s is not a known reason", b.at(), why)
					}
					left = append(left, b.at()+" "+why)
					continue
				}
				p.check(b)
			}
		})
	}
	t.Logf("%d blocks are not run:\n%s", len(left), strings.Join(left, "\n"))
}

// page is one document with the daemon that its commands talk to.
type page struct {
	t   *testing.T
	n   *node.Node
	dir string // where its commands run

	snap *policy.Snapshot // of the last block of documents
}

// start starts the daemon with the first block that needs it.
func (p *page) start() {
	if p.n == nil {
		p.n = node.Start(p.t, node.Options{Config: "gateway:\n  hosts:\n    time.internal: [" + timeServer(p.t) + "]\n"})
		p.dir = p.n.Workspace(p.t)
	}
}

// timeServer answers NTP questions at an address of loopback that no other run
// has, and returns it. What the time is, it does not know.
func timeServer(t *testing.T) string {
	t.Helper()
	addr := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	c, err := net.ListenPacket("udp", addr+":123")
	if err != nil {
		t.Fatalf("a time server for the pages: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			if n == 48 && buf[0]&7 == 3 { // RFC 5905: a client
				answer := make([]byte, 48)
				answer[0] = 4<<3 | 4 // version 4, server
				_, _ = c.WriteTo(answer, from)
			}
		}
	}()
	return addr
}

func (p *page) check(b *block) {
	p.t.Helper()
	switch b.lang {
	case "yaml":
		p.yaml(b)
	case "json":
		p.json(b)
	case "console":
		p.start()
		p.console(b)
	case "sh":
		p.start()
		if out, code := p.bash("set -e\n" + b.text()); code != 0 {
			p.t.Errorf("%s: exit %d:\n%s", b.at(), code, out)
		}
	case "decisions":
		p.decisions(b)
	case "text":
	default:
		p.t.Errorf("%s: unknown kind of block %q", b.at(), b.lang)
	}
}

func (p *page) json(b *block) {
	var line bytes.Buffer
	if err := json.Compact(&line, []byte(b.text())); err != nil {
		p.t.Errorf("%s: %v", b.at(), err)
		return
	}
	if _, ok := b.info["event"]; !ok {
		return
	}
	e, err := event.ParseOCSF(line.Bytes())
	if err != nil {
		p.t.Errorf("%s: not an event: %v", b.at(), err)
		return
	}
	if !e.Kind.Valid() || e.Sequence == 0 {
		p.t.Errorf("%s: an event without kind or sequence: %+v", b.at(), e)
	}
}

func (p *page) yaml(b *block) {
	if _, ok := b.info["config"]; ok {
		p.config(b)
		return
	}
	if !strings.Contains(strings.ToLower(b.text()), "apiversion: ringfence.dev") {
		p.t.Errorf("%s: a yaml block is a document or marked as config", b.at())
		return
	}
	parse := policy.Parse
	if _, ok := b.info["whole"]; ok { // shows what does not come into force yet
		parse = policy.ParseWhole
	}
	docs, problems := parse(b.at(), []byte(b.text()))
	var snap *policy.Snapshot
	if len(problems) == 0 {
		snap, problems = policy.Compile(1, docs)
	}
	p.snap = snap
	p.problems(b, problems)
	if name, ok := b.info["file"]; ok {
		p.start()
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(b.text()), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	if name, ok := b.info["policy"]; ok {
		p.start()
		p.n.WritePolicy(p.t, name, b.text())
		p.await(filepath.Join(p.n.PolicyDir, name))
	}
}

// problems compares what is wrong with what the block says is wrong.
func (p *page) problems(b *block, problems []policy.Problem) {
	var want []string
	for _, l := range b.body {
		if _, text, ok := strings.Cut(l, "# error: "); ok {
			want = append(want, text)
		}
	}
	for _, pr := range problems {
		i := slices.IndexFunc(want, func(w string) bool { return strings.Contains(pr.Error(), w) })
		if i < 0 {
			p.t.Errorf("%s: %v", b.at(), pr)
			continue
		}
		want = slices.Delete(want, i, i+1)
	}
	for _, w := range want {
		p.t.Errorf("%s: no error %q", b.at(), w)
	}
}

// await waits until a document is in force.
func (p *page) await(file string) {
	for range 100 {
		if r := p.n.CLI(p.t, "policy", "show"); strings.Contains(r.Stdout, file) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("%s does not come into force", file)
}

func (p *page) config(b *block) {
	file := filepath.Join(p.t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(b.text()), 0o644); err != nil {
		p.t.Fatal(err)
	}
	c := daemon.Default()
	if err := c.ReadConfig(file); err != nil {
		p.t.Errorf("%s: %v", b.at(), err)
		return
	}
	if err := c.Complete("/usr/sbin/ringfenced"); err != nil {
		p.t.Errorf("%s: %v", b.at(), err)
	}
}

// command is one prompt of a console block.
type command struct {
	line  string
	want  []string
	code  int
	first int // line of the block
}

func commandsOf(b *block) (out []*command, err error) {
	more := false
	for i, l := range b.body {
		prompt, isPrompt := strings.CutPrefix(l, "$ ")
		switch {
		case more:
			out[len(out)-1].line += "\n" + l
		case isPrompt:
			out = append(out, &command{line: prompt, first: b.line + 1 + i})
		case len(out) == 0:
			return nil, errors.New("output before the first command")
		case strings.HasPrefix(l, "(exit "):
			if _, err := fmt.Sscanf(l, "(exit %d)", &out[len(out)-1].code); err != nil {
				return nil, fmt.Errorf("%q: %w", l, err)
			}
			continue
		default:
			out[len(out)-1].want = append(out[len(out)-1].want, l)
			continue
		}
		more = strings.HasSuffix(l, "\\")
	}
	return out, nil
}

func (p *page) console(b *block) {
	cmds, err := commandsOf(b)
	if err != nil {
		p.t.Errorf("%s: %v", b.at(), err)
		return
	}
	for _, c := range cmds {
		out, code := p.bash(c.line)
		miss, ok := missing(c.want, out)
		for deadline := time.Now().Add(5 * time.Second); !ok && code == c.code && strings.HasPrefix(c.line, "ringfence events") && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond) // a record is on its way
			out, code = p.bash(c.line)
			miss, ok = missing(c.want, out)
		}
		if code != c.code {
			p.t.Errorf("%s:%d: %s: exit %d, not %d:\n%s", b.file, c.first, c.line, code, c.code, out)
		} else if !ok {
			p.t.Errorf("%s:%d: %s: no line like %q in:\n%s", b.file, c.first, c.line, miss, out)
		}
	}
}

// missing returns the first wanted line that the output does not have, in
// order.
func missing(want []string, out string) (string, bool) {
	lines := strings.Split(out, "\n")
	for _, w := range want {
		if strings.TrimSpace(w) == "..." || strings.TrimSpace(w) == "" {
			continue
		}
		i := slices.IndexFunc(lines, func(l string) bool { return like(l, w) })
		if i < 0 {
			return w, false
		}
		lines = lines[i+1:]
	}
	return "", true
}

// like says whether the parts of pattern between "..." are in line, in order;
// runs of spaces count as one.
func like(line, pattern string) bool {
	line = strings.Join(strings.Fields(line), " ")
	for part := range strings.SplitSeq(pattern, "...") {
		_, rest, ok := strings.Cut(line, strings.Join(strings.Fields(part), " "))
		if !ok {
			return false
		}
		line = rest
	}
	return true
}

// bash runs a script as a reader would: in the page's directory, with the
// programs in PATH and the daemon's socket named.
func (p *page) bash(script string) (out string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "RINGFENCE_SOCKET="+p.n.Socket, "PATH="+p.n.Bin+":"+os.Getenv("PATH"), "HOME="+p.n.Dir,
		"RUN="+p.n.RunDir, "STATE="+p.n.StateDir, "NO_COLOR=1")
	r, err := cmd.CombinedOutput()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		p.t.Fatal(err)
	}
	return string(r), cmd.ProcessState.ExitCode()
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		line, pattern string
		want          bool
	}{
		{"12:00 DENIED  dns   sh   A x", "DENIED dns sh", true},
		{"12:00 DENIED  dns   sh   A x", "DENIED ... A x", true},
		{"12:00 DENIED  dns   sh   A x", "A x ... DENIED", false},
		{"", "x", false},
	} {
		if got := like(c.line, c.pattern); got != c.want {
			t.Errorf("like(%q, %q) = %v", c.line, c.pattern, got)
		}
	}
	if m, ok := missing([]string{"b", "a"}, "a\nb\n"); ok || m != "a" {
		t.Error("the order of lines does not count")
	}
}

// TestLinks: what a page points to is there.
func TestLinks(t *testing.T) {
	for _, path := range pages(t) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range strings.Split(string(raw), "](") {
			target, _, ok := strings.Cut(part, ")")
			if i == 0 || !ok || strings.Contains(target, "://") {
				continue
			}
			file, anchor, _ := strings.Cut(target, "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
			}
			page, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s: link to %s: %v", filepath.Base(path), target, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchorsOf(string(page)), anchor) {
				t.Errorf("%s: link to %s: no such heading", filepath.Base(path), target)
			}
		}
	}
}

func anchorsOf(page string) (out []string) {
	for line := range strings.Lines(page) {
		title := strings.TrimSpace(strings.TrimLeft(line, "#"))
		if !strings.HasPrefix(line, "#") {
			continue
		}
		slug := strings.Map(func(r rune) rune {
			switch {
			case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '_':
				return r
			case r == ' ':
				return '-'
			}
			return -1
		}, strings.ToLower(title))
		out = append(out, slug)
	}
	return out
}
