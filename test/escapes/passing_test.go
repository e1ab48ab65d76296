// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// channel is a way by which one sandbox may meet a socket of another. The
// giver is at the path.
type channel struct {
	name, path string
	profile    string   // of the taker
	errnos     []string // none: descriptors pass
}

var channels = []channel{
	{"a socket in the shared workspace", "give.sock", "coding", nil},
	{"the same, the workspace read-only", "give.sock", "default", nil},
	{"the same, a profile without unix sockets", "give.sock", closed, []string{"EACCES", "EPERM", "EAFNOSUPPORT"}},
	{"an abstract name", "@neighbour-give", "coding", []string{"ECONNREFUSED", "EPERM"}},
	{"a socket in /tmp", "/tmp/neighbour-give.sock", "coding", []string{"ENOENT"}},
	{"the other's workspace by its link in /proc", "/proc/1/cwd/give.sock", "coding", []string{"ENOENT", "EACCES"}},
}

// handover is something that is passed, and what the taker does with it. V is
// the giver's virtual address and port, L a literal address and port that the
// taker's policy allows and the giver's does not, F one that nobody's allows.
type handover struct {
	what, do, arg string
	errnos        []string // none: it works, and docs/THREATS.md says so
	recorded      bool     // by the kernel, as the giver's
	root          bool     // the control needs root
	third         bool     // the third lock judges the taker, and refuses it
}

var handovers = []handover{
	{what: "tcp", do: "talk", arg: "hello", third: true},
	{what: "socket", do: "connect", arg: "V", recorded: true, third: true},
	{what: "file", do: "read"},
	{what: "socket", do: "connect", arg: "L", errnos: []string{"EACCES", "EPERM"}, recorded: true},
	{what: "socket", do: "connect", arg: "F", errnos: []string{"EACCES", "EPERM"}, recorded: true, third: true},
	{what: "udp", do: "send", arg: "F", errnos: []string{"EACCES", "EPERM"}, recorded: true, third: true},
	{what: "home", do: "open", arg: "private", errnos: []string{"EACCES"}},
	{what: "home", do: "chdir", arg: "private", errnos: []string{"EACCES"}},
	{what: "file", do: "reopen", errnos: []string{"EACCES"}},
	{what: "proc", do: "open", arg: "environ", errnos: []string{"EACCES", "ENOENT"}},
	{what: "proc", do: "open", arg: "mem", errnos: []string{"EACCES", "ENOENT"}},
	{what: "proc", do: "open", arg: "root/etc/passwd", errnos: []string{"EACCES", "ENOENT"}},
	{what: "netns", do: "setns", errnos: []string{"EPERM"}, root: true},
	{what: "pidfd", do: "signal", errnos: []string{"EPERM", "EINVAL", "ESRCH"}},
	{what: "pidfd", do: "getfd", errnos: []string{"EPERM"}},
}

// passing is a place with a giver in one sandbox.
type passing struct {
	*place
	n             *node.Node
	ws            string
	member        bool
	third         bool // the kernel has the third lock
	echo          *doubles.Echo
	giver, policy string // name of its sandbox, its policy file in the directory
	own           string // the taker's policy, a file
	at            map[string]string
}

// TestPassing passes descriptors from one sandbox to another of the same
// caller. What is passed keeps the rights of the sandbox that made it: they are
// lent, not widened, and end with it.
func TestPassing(t *testing.T) {
	p := newPlace(t)
	var echo *doubles.Echo
	var err error
	p.do(func() { echo, err = doubles.NewEcho(nil) })
	need(t, err)
	t.Cleanup(func() { need(t, echo.Close()) })
	n := node.Start(t, node.Options{NoStart: true, Config: "group: " + group + "\n" + echoConfig})
	p.do(func() { n.StartDaemon(t) })
	p.home = n // whose directory takes the closed profile
	program := neighbourProgram(t)
	t.Run("controls", func(t *testing.T) { p.passedOutside(t, program, echo) })
	for _, member := range []bool{true, false} {
		who := map[bool]string{true: "member", false: "root"}[member]
		t.Run("of "+who, func(t *testing.T) {
			h := &passing{place: p, n: n, member: member, echo: echo, giver: "giver-" + who, policy: "giver-" + who + ".yaml"}
			h.start(t, program)
			t.Run("channels", h.channels)
			if judgesSockets() {
				t.Skip("nothing passes: this kernel judges unix sockets by path")
			}
			t.Run("things", h.things)
			t.Run("the other way", h.backwards)
			t.Run("after the policy changed", h.withdrawn)
			t.Run("after the end", h.ended)
		})
	}
}

// start runs the giver, whose policy allows the echo server.
func (h *passing) start(t *testing.T, program []byte) {
	h.ws = h.shared(t, h.n, program, h.member)
	h.n.WritePolicy(t, h.policy, h.allowEcho(true))
	detached(t, h.n, h.ws, h.member, h.giver, "--as", "org:local/team:default/agent:"+h.giver, "--", "sh", "-c",
		"for at in give.sock @neighbour-give /tmp/neighbour-give.sock; do ./neighbour give $at & done; wait")
	h.third = thirdLock(t, h.n, h.giver).State == api.Enforced
	eventually(t, "the giver listens", func() bool { _, err := os.Stat(filepath.Join(h.ws, "give.sock")); return err == nil })
	h.own = filepath.Join(h.ws, "own.yaml")
	port := h.world.Params["port"]
	need(t, os.WriteFile(h.own, []byte("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: own}\nscope: org:local/team:default\negress:\n"+
		"  - {id: literal, allow: \"203.0.113.7:"+port+"\"}\n"), 0o644))
	h.at = map[string]string{
		"V": fmt.Sprintf("%s:%d", virtual(t, h.n, h.giver, "echo.example"), portOf(h.echo)), "L": "203.0.113.7:" + port, "F": "10.99.0.1:" + port,
		"echo": fmt.Sprintf("echo.example:%d", portOf(h.echo)),
	}
}

func (h *passing) allowEcho(yes bool) string {
	rule := fmt.Sprintf("  - {id: echo, allow: \"echo.example:%d\", resolvesTo: [127.0.0.1/32]}\n", portOf(h.echo))
	if !yes {
		rule = "  - {id: other, allow: \"web.example:443\"}\n"
	}
	return "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: " + h.giver + "}\nscope: org:local/team:default/agent:" + h.giver + "\negress:\n" + rule
}

// taker prepares a sandbox that takes something.
func (h *passing) taker(t *testing.T, profile string, args ...string) *exec.Cmd {
	t.Helper()
	l := &launch{args: []string{"--profile", profile}}
	args = append(append([]string{"run", "--quiet", "--policy", h.own}, h.profile(t, l)...), append([]string{"--", "./neighbour", "take"}, args...)...)
	return command(t, h.n, h.ws, h.member, args...)
}

func (h *passing) take(t *testing.T, profile string, args ...string) result {
	t.Helper()
	r := node.Finish(t, h.taker(t, profile, args...))
	if r.Stdout == "" {
		t.Fatalf("take %v: %+v", args, r)
	}
	return parse(t, []byte(r.Stdout))
}

// judged compares a result with the errnos that are right, none meaning that
// it works.
func judged(t *testing.T, what string, r result, errnos []string) {
	t.Helper()
	switch {
	case len(errnos) == 0 && !r.OK:
		t.Errorf("%s: %s %s", what, r.Errno, r.Detail)
	case len(errnos) > 0 && r.OK:
		t.Errorf("ESCAPE: %s works", what)
	case len(errnos) > 0 && !slices.Contains(errnos, r.Errno):
		t.Errorf("%s: refused with %s, not with %v: %s", what, r.Errno, errnos, r.Detail)
	}
}

func (h *passing) channels(t *testing.T) {
	for _, c := range channels {
		errnos := c.errnos
		if errnos == nil && judgesSockets() {
			errnos = []string{"EACCES"}
		}
		judged(t, c.name, h.take(t, c.profile, c.path, "file", "read", "-"), errnos)
	}
}

// reached is how much of what a taker does arrived at the server: bytes where
// the giver had connected, connections where it had not.
func (h *passing) reached(what string) int64 {
	if what == "tcp" {
		return h.echo.Bytes()
	}
	return int64(h.echo.Count())
}

// judgesSockets says that Landlock keeps sandboxes from each other's sockets
// (ABI 9, Linux 7.1).
func judgesSockets() bool { return confine.LandlockABI() >= 9 }

// things: what can be done with each depends on the sandbox that made it.
func (h *passing) things(t *testing.T) {
	for _, x := range handovers {
		name := x.what + " " + x.do + " " + x.arg
		h.world.Effects()
		began, before := time.Now(), h.reached(x.what)
		what, arg := x.what, x.arg
		if what == "tcp" {
			what += " " + h.at["echo"]
		}
		if at, ok := h.at[arg]; ok {
			arg = at
		}
		if h.third && x.third {
			x.errnos, x.recorded = []string{"EACCES"}, false
		}
		judged(t, name, h.take(t, "coding", "give.sock", what, x.do, arg), x.errnos)
		time.Sleep(50 * time.Millisecond) // what is on its way
		if effects := h.world.Effects(); len(effects) > 0 {
			t.Errorf("ESCAPE: %s: the world noticed: %v", name, effects)
		}
		if arrived := h.reached(x.what) > before; arrived != (len(x.errnos) == 0 && x.what != "file") {
			t.Errorf("%s: the server noticed: %v", name, arrived)
		}
		if x.recorded {
			h.recordedAsGivers(t, x, began)
		}
	}
	// The taker's own policy is what was said: with a socket of its own it
	// gets to the gateway, which does not dial an address of this machine.
	r := node.Finish(t, command(t, h.n, h.ws, h.member, "run", "--quiet", "--profile", "coding", "--policy", h.own, "--", "./attempts", "tcp-literal4", "port="+h.world.Params["port"]))
	if res := parse(t, []byte(r.Stdout)); !res.OK && res.Errno != "ECONNRESET" {
		t.Errorf("control: the taker's own policy: %+v", res)
	}
	h.world.Effects()
}

// recordedAsGivers: the event names the sandbox whose socket it was.
func (h *passing) recordedAsGivers(t *testing.T, x handover, began time.Time) {
	t.Helper()
	want := event.Allowed
	if len(x.errnos) > 0 {
		want = event.Denied
	}
	id := h.n.Sandbox(t, h.giver).ID
	h.n.WaitEvent(t, "the verdict on "+x.what+" "+x.do+" "+x.arg, func(e *event.Event) bool {
		return e.Sandbox == id && e.Kind == event.KindNetwork && e.Verdict == want && e.DstAddr == h.at[x.arg]
	}, "--since", began.Add(-time.Second).Format(time.RFC3339Nano))
	for _, e := range h.n.Events(t, "--since", began.Format(time.RFC3339Nano)) {
		if e.Sandbox != id && e.Kind == event.KindNetwork && e.DstAddr == h.at[x.arg] {
			t.Errorf("recorded as another's: %s", e.Compact(false))
		}
	}
}

// backwards: a socket of a sandbox that may do less is worth less in the hands
// of one that may do more.
func (h *passing) backwards(t *testing.T) {
	poor := h.giver + "-poor"
	detached(t, h.n, h.ws, h.member, poor, "--", "./neighbour", "give", "poor.sock")
	eventually(t, "it listens", func() bool { _, err := os.Stat(filepath.Join(h.ws, "poor.sock")); return err == nil })
	before := h.echo.Count()
	exec := func(args ...string) result {
		t.Helper()
		r := node.Finish(t, command(t, h.n, h.ws, h.member, append([]string{"exec", h.giver, "--", "./neighbour", "take"}, args...)...))
		return parse(t, []byte(r.Stdout))
	}
	judged(t, "control: a socket of its own kind", exec("give.sock", "socket", "connect", h.at["V"]), nil)
	eventually(t, "control: the server counts", func() bool { return h.echo.Count() == before+1 })
	judged(t, "a poor socket", exec("poor.sock", "socket", "connect", h.at["V"]), []string{"EACCES", "EPERM"})
	if got := h.echo.Count(); got != before+1 {
		t.Errorf("ESCAPE: %d connections", got-before)
	}
}

// later starts a taker that acts when a file appears; finish makes it appear.
func (h *passing) later(t *testing.T, file, what, do, arg string) (finish func() result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := h.taker(t, "coding", "give.sock", what, do, arg)
	out, err := cmd.StdoutPipe()
	need(t, err)
	need(t, cmd.Start())
	return func() result {
		need(t, os.WriteFile(filepath.Join(h.ws, file), nil, 0o666))
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		defer stop()
		b, err := io.ReadAll(out)
		need(t, err)
		_ = cmd.Wait()
		if len(b) == 0 {
			t.Fatalf("%s %s: no result", what, do)
		}
		return parse(t, b)
	}
}

// withdrawn: a connection that was passed on ends with the rule it was made
// under.
func (h *passing) withdrawn(t *testing.T) {
	before := h.echo.Count()
	finish := h.later(t, "withdrawn", "tcp "+h.at["echo"], "wait", "withdrawn")
	eventually(t, "control: it is connected", func() bool { return h.echo.Count() > before })
	h.n.WritePolicy(t, h.policy, h.allowEcho(false))
	eventually(t, "the policy is in force", func() bool {
		r := h.n.CLI(t, "exec", h.giver, "--", "./attempts", "tcp-literal4", "addr="+strings.Split(h.at["V"], ":")[0], fmt.Sprintf("port=%d", portOf(h.echo)))
		return strings.Contains(r.Stdout, `"ok":false`)
	})
	judged(t, "a connection whose rule is gone", finish(), []string{"none", "EPIPE", "ECONNRESET", "ECONNABORTED", "EPERM", "EACCES"})
	h.n.WritePolicy(t, h.policy, h.allowEcho(true))
	eventually(t, "the policy is back", func() bool {
		if !h.third {
			return h.take(t, "coding", "give.sock", "tcp "+h.at["echo"], "talk", "again").OK
		}
		r := h.n.CLI(t, "exec", h.giver, "--", "./neighbour", "take", "give.sock", "socket", "connect", h.at["V"])
		return strings.Contains(r.Stdout, `"ok":true`)
	})
}

// ended: what was passed on outlives its sandbox as a descriptor, and leads
// nowhere: no program judges it any more, and its namespace has no way out.
func (h *passing) ended(t *testing.T) {
	before := h.echo.Count()
	finish := map[string]func() result{
		"a connection":         h.later(t, "ended", "tcp "+h.at["echo"], "wait", "ended"),
		"to the allowed name":  h.later(t, "ended", "socket", "connect-later", "ended "+h.at["V"]),
		"to a literal address": h.later(t, "ended", "socket", "connect-later", "ended "+h.at["F"]),
		"to the host":          h.later(t, "ended", "socket", "connect-later", "ended 127.0.0.1:"+h.world.Params["port"]),
	}
	eventually(t, "control: it is connected", func() bool { return h.echo.Count() > before })
	time.Sleep(2 * time.Second) // the others have their sockets
	h.world.Effects()
	now := h.echo.Count()
	if r := h.n.CLI(t, "stop", "--timeout", "0s", h.giver); r.Code != 0 {
		t.Fatalf("stop: %+v", r)
	}
	for what, f := range finish {
		judged(t, what, f(), []string{"none", "EPIPE", "ECONNRESET", "ECONNABORTED", "ECONNREFUSED", "EACCES", "EPERM", "ENETUNREACH", "EHOSTUNREACH", "EADDRNOTAVAIL"})
	}
	if effects := h.world.Effects(); len(effects) > 0 || h.echo.Count() != now {
		t.Errorf("ESCAPE: after the end the world noticed %v, the server %d", effects, h.echo.Count()-now)
	}
	if r := h.take(t, "coding", "give.sock", "socket", "read", "-"); r.OK || r.Errno != "ECONNREFUSED" {
		t.Errorf("the giver still answers: %+v", r)
	}
}

// passedOutside: between two processes of one user everything of the tables
// works.
func (p *place) passedOutside(t *testing.T, program []byte, echo *doubles.Echo) {
	dir, err := os.MkdirTemp("", "nb")
	need(t, err)
	t.Cleanup(func() { need(t, os.RemoveAll(dir)) })
	need(t, os.Chown(dir, owner, owner))
	tool := filepath.Join(dir, "neighbour")
	need(t, os.WriteFile(tool, program, 0o755))
	ctx, cancel := context.WithCancel(t.Context())
	start := func(path string) {
		cmd := asOwner(exec.CommandContext(ctx, tool, "give", path))
		cmd.Env, cmd.Dir, cmd.Stderr = []string{"HOME=" + dir}, dir, os.Stderr
		p.do(func() { err = cmd.Start() })
		need(t, err)
		t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it was killed
	}
	tmp := "/tmp/neighbour-give.sock"
	t.Cleanup(func() { _ = os.Remove(tmp) }) // if it was made
	for _, path := range []string{"give.sock", "@neighbour-give", tmp} {
		start(path)
	}
	take := func(root bool, args ...string) result {
		cmd := exec.CommandContext(ctx, tool, append([]string{"take"}, args...)...)
		cmd.Dir = dir
		if !root {
			asOwner(cmd)
		}
		var r node.Result
		p.do(func() { r = node.Finish(t, cmd) })
		return parse(t, []byte(r.Stdout))
	}
	for _, path := range []string{"give.sock", "@neighbour-give", tmp, "/proc/self/cwd/give.sock"} {
		eventually(t, "the giver at "+path, func() bool { return take(false, path, "file", "read", "-").OK })
	}
	at := map[string]string{"V": echo.Addr().String(), "L": "203.0.113.7:" + p.world.Params["port"], "F": "10.99.0.1:" + p.world.Params["port"]}
	for _, x := range handovers {
		what, arg := x.what, x.arg
		if what == "tcp" {
			what += " " + echo.Addr().String()
		}
		if there, ok := at[arg]; ok {
			arg = there
		}
		p.world.Effects()
		if r := take(x.root, "give.sock", what, x.do, arg); !r.OK {
			t.Errorf("%s %s %s fails without a fence: %s %s", x.what, x.do, x.arg, r.Errno, r.Detail)
		}
		if x.arg == "L" || x.arg == "F" {
			eventually(t, "the world notices "+x.what+" "+x.arg, func() bool { return len(p.world.Effects()) > 0 })
		}
	}
}
