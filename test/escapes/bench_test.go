// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/seccomp"
	"github.com/ringfence/ringfence/profiles"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/locks"
	"github.com/ringfence/ringfence/test/node"
)

// bench makes attempts behind single layers of the product: the namespaces and
// the gateway of a sandbox that runs, the kernel programs on cgroups of the
// test's own, the filter and the file rules of the shipped profile.
type bench struct {
	*place
	box     api.Sandbox
	fence   *kernel.Fence // for which the place is somewhere else
	hosts   *kernel.Fence // for which it is the machine's own namespace
	pins    map[*kernel.Fence]string
	groups  map[string]*os.File // cgroups with one layer's programs
	rules   []confine.LandlockRule
	filters map[bool]string // by whether unix sockets are closed

	settings []setting
	wanted   map[string][]string // attempts by setting
	trials   map[trialKey]trial
}

// setting is one lock to be alone behind; the zero value is no lock at all.
type setting struct {
	lock   string
	layers []locks.Layer
	closed bool
	as     string // user or root
}

type trialKey struct {
	lock   string
	closed bool
	name   string // of the attempt
}

type trial struct {
	made, passed bool
	what         string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	// Not below /tmp: the file rules open /tmp, which in a sandbox is its own.
	b := &bench{place: newPlaceIn(t, "/var"), groups: map[string]*os.File{}, filters: map[bool]string{}, pins: map[*kernel.Fence]string{}, wanted: map[string][]string{}, trials: map[trialKey]trial{}}
	b.wire = node.Start(t, node.Options{NoStart: true, Config: "group: " + group + "\n"})
	b.home = b.wire
	var err error
	b.do(func() {
		if err = anywhere(); err != nil {
			return
		}
		err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 2147483647"), 0)
		b.wire.StartDaemon(t)
	})
	need(t, err)
	b.install(t)
	r := b.wire.CLI(t, "run", "--detach", "--name", "walls", "--workspace", b.world.Params["ws"], "--profile", "coding", "--", "sleep", "1000")
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	b.box = b.wire.Sandbox(t, "walls")
	b.walls(t)
	b.fence, err = b.open(t)
	need(t, err)
	b.do(func() { b.hosts, err = b.open(t) })
	need(t, err)
	return b
}

// open loads programs whose home is the network namespace of the caller.
func (b *bench) open(t *testing.T) (*kernel.Fence, error) {
	t.Helper()
	pins := t.TempDir()
	f, err := kernel.Open(kernel.Options{PinDir: pins, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	b.pins[f] = pins
	t.Cleanup(func() { need(t, f.Remove()) })
	return f, nil
}

// anywhere leads every address of the thread's namespace to its loopback
// interface: the broadcast address and multicast groups are no addresses of it.
func anywhere() error {
	return netlink.RouteAdd(&netlink.Route{LinkIndex: 1, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
}

// install puts the attempts program where both the host and the view show it.
func (p *place) install(t *testing.T) string {
	t.Helper()
	program := filepath.Join(p.world.Params["ws"], "attempts")
	need(t, os.WriteFile(program, p.program, 0o755))
	need(t, os.Chown(program, owner, owner))
	return program
}

// walls makes the file rules and the filters of the coding profile.
func (b *bench) walls(t *testing.T) {
	t.Helper()
	file, text, err := profiles.Read("coding")
	need(t, err)
	docs, problems := policy.Parse(file, text)
	if len(problems) > 0 || len(docs) != 1 {
		t.Fatalf("%v", problems)
	}
	profile := docs[0].Profile
	walls, err := sandbox.WallsOf(profile, nil)
	need(t, err)
	ws, err := os.OpenFile(b.world.Params["ws"], unix.O_PATH|unix.O_DIRECTORY, 0)
	need(t, err)
	defer ws.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	need(t, err)
	defer null.Close()
	options := sandbox.FilterOf(profile)
	for closed, o := range map[bool]seccomp.Options{false: options, true: {}} {
		filter, err := seccomp.Compile(o)
		need(t, err)
		b.filters[closed] = filepath.Join(b.dir, fmt.Sprintf("filter-%v", closed))
		need(t, os.WriteFile(b.filters[closed], filter, 0o600))
		if closed {
			continue
		}
		plan, err := confine.Plan(confine.PlanInput{
			Walls: walls, SandboxID: "locks", Identity: confine.Identity{UID: b.box.UID, GID: b.box.UID}, HostUID: b.box.UID, HostGID: b.box.UID,
			Workspace: ws, WorkspaceTarget: b.world.Params["ws"], Argv: []string{"true"}, SeccompFilter: filter, Stdio: [3]*os.File{null, null, null},
		})
		need(t, err)
		b.rules = plan.Spec.Landlock.Rules
		plan.Close()
	}
	for i := range b.rules {
		b.rules[i].Optional = true // in the host's view not everything exists that a sandbox has
	}
}

// lacks says which layer of a lock this kernel has not.
func (b *bench) lacks(l locks.Lock) string {
	for _, layer := range l.Layers {
		have := true
		switch layer {
		case locks.Unix:
			have = slices.Contains(b.fence.Hooks(), kernel.HookConnectUnix)
		case locks.Landlock:
			have = confine.LandlockABI() >= 2
		case locks.Scopes:
			have = confine.LandlockABI() >= 6
		case locks.UnixPaths:
			have = confine.LandlockABI() >= 9
		}
		if !have {
			return layer.String() + " (Linux " + layer.Since() + ")"
		}
	}
	return ""
}

func (b *bench) want(s setting, attempt string) {
	key := fmt.Sprint(s)
	if len(b.wanted[key]) == 0 {
		b.settings = append(b.settings, s)
	}
	if !slices.Contains(b.wanted[key], attempt) {
		b.wanted[key] = append(b.wanted[key], attempt)
	}
}

// hooks are the programs of a layer on the sandbox's cgroup.
var layerHooks = map[locks.Layer][]kernel.Hook{
	locks.Address:   {kernel.HookConnect4, kernel.HookConnect6, kernel.HookSendmsg4, kernel.HookSendmsg6},
	locks.Elsewhere: {kernel.HookConnect4, kernel.HookConnect6, kernel.HookSendmsg4, kernel.HookSendmsg6},
	locks.Socket:    {kernel.HookSockCreate},
	locks.Egress:    {kernel.HookEgress},
	locks.Unix:      {kernel.HookConnectUnix, kernel.HookSendmsgUnix},
}

// group is a cgroup that carries the programs of one layer and no others.
func (b *bench) group(t *testing.T, layer locks.Layer, closed bool) *os.File {
	t.Helper()
	key := fmt.Sprint(layer, closed)
	if f := b.groups[key]; f != nil {
		return f
	}
	path := filepath.Join(b.wire.Cgroup(t), "gateway") // of the product, as it is
	if layer != locks.Fence {
		path = b.fenced(t, layer, closed)
	}
	f, err := os.Open(path)
	need(t, err)
	t.Cleanup(func() { f.Close() })
	b.groups[key] = f
	return f
}

func (b *bench) fenced(t *testing.T, layer locks.Layer, closed bool) string {
	t.Helper()
	root, err := kernel.CgroupRoot()
	need(t, err)
	number := uint32(len(b.groups) + 1)
	path := filepath.Join(root, fmt.Sprintf("ringfence-test-%d-%d", os.Getpid(), number))
	need(t, os.Mkdir(path, 0o755))
	flags := kernel.FlagLoopback | kernel.FlagDNS // as every sandbox has them
	if !closed {
		flags |= kernel.FlagUnix
	}
	fence := b.fence
	if layer == locks.Elsewhere {
		fence = b.hosts
	}
	s, err := fence.AttachSandbox(path, kernel.State{Sandbox: number, Policy: number, Generation: 1, Flags: flags})
	need(t, err)
	t.Cleanup(func() {
		err := s.Detach()
		for end := time.Now().Add(env.Wait(5 * time.Second)); err != nil && time.Now().Before(end); err = s.Detach() {
			time.Sleep(10 * time.Millisecond) // processes are just ending
		}
		need(t, err)
		need(t, os.Remove(path))
	})
	pins, err := filepath.Glob(filepath.Join(b.pins[fence], "ringfence-v*", "sandbox", fmt.Sprint(number), "*"))
	need(t, err)
	left := 0
	for _, pin := range pins {
		if slices.ContainsFunc(layerHooks[layer], func(h kernel.Hook) bool { return h.String() == filepath.Base(pin) }) {
			left++
			continue
		}
		l, err := link.LoadPinnedLink(pin, nil)
		need(t, err)
		need(t, l.Detach())
		need(t, l.Close())
	}
	if left != len(layerHooks[layer]) {
		t.Fatalf("%s: %d programs are attached, of %v", layer, left, pins)
	}
	return path
}

// placed is how a process comes behind a lock.
func (b *bench) placed(t *testing.T, s *setting) (p placement, group *os.File) {
	t.Helper()
	ns := fmt.Sprintf("/proc/%d/ns", b.box.PID)
	if s.as == "user" {
		p.UID, p.GID = owner, owner
	}
	for _, layer := range s.layers {
		switch layer {
		case locks.Address, locks.Elsewhere, locks.Socket, locks.Egress, locks.Unix, locks.Fence:
			group = b.group(t, layer, s.closed)
		case locks.Network:
			p.Network = ns + "/net"
		case locks.Gateway: // it is where the namespace leads to
		case locks.View:
			p.View = ns
		case locks.Shared:
			p.Shared = ns + "/ipc"
		case locks.Seccomp:
			p.Filter = b.filters[s.closed]
		case locks.Landlock, locks.Scopes, locks.UnixPaths:
			p.Landlock = b.rules
		case locks.Rights:
			p.Rights, p.UID, p.GID = true, b.box.UID, b.box.UID
		default:
			t.Fatalf("%s cannot be had alone", layer)
		}
	}
	return p, group
}

// witness is an attempt that succeeds behind every lock but those that hold one
// of the layers: so those are what is absent where it succeeds.
type witness struct {
	name   string
	layers []locks.Layer
}

var fileRules = []locks.Layer{locks.Landlock, locks.Scopes, locks.UnixPaths} // one domain

var witnesses = []witness{
	{"tcp-literal4", []locks.Layer{locks.Address, locks.Elsewhere, locks.Egress, locks.Network, locks.Fence}},
	{"read-ssh-key", []locks.Layer{locks.Landlock, locks.View, locks.Rights}},
	{"host-signal", []locks.Layer{locks.Scopes, locks.View, locks.Rights}},
	{"process-trace-child", []locks.Layer{locks.Seccomp}},
	{"ipc-sysv-shm", []locks.Layer{locks.Shared}},
	{"unix-stream", []locks.Layer{locks.View, locks.Unix, locks.Seccomp, locks.UnixPaths, locks.Fence}},
	{"socket-ping", []locks.Layer{locks.Socket, locks.Seccomp, locks.Fence, locks.Network}},
	{"socket-packet-raw", []locks.Layer{locks.Seccomp, locks.Rights}},
	{"ns-unshare-uts", []locks.Layer{locks.Seccomp, locks.Rights}},
	{"kernel-kmsg", []locks.Layer{locks.Landlock, locks.View, locks.Rights}},
}

func (w *witness) of(b *bench, s *setting) bool {
	there := slices.Clone(s.layers)
	for _, l := range fileRules {
		if b.lacks(locks.Lock{Layers: []locks.Layer{l}}) == "" && slices.ContainsFunc(s.layers, func(l locks.Layer) bool { return slices.Contains(fileRules, l) }) {
			there = append(there, l)
		}
	}
	return b.attempt(w.name).As == s.as && !slices.ContainsFunc(there, func(l locks.Layer) bool { return slices.Contains(w.layers, l) })
}

// run makes all attempts that are wanted, and those that show that nothing but
// the lock is there.
func (b *bench) run(t *testing.T) {
	t.Helper()
	// The keeper is not needed, and may end a sandbox in whose namespaces it
	// finds processes that are only half inside.
	need(t, unix.Kill(b.wire.PID(), unix.SIGSTOP))
	defer unix.Kill(b.wire.PID(), unix.SIGCONT)
	for _, s := range b.settings {
		names := slices.Clone(b.wanted[fmt.Sprint(s)])
		for _, w := range witnesses {
			if w.of(b, &s) && !slices.Contains(names, w.name) {
				names = append(names, w.name)
			}
		}
		began := time.Now()
		b.behind(t, &s, names)
		t.Logf("%d attempts behind %q, closed %v, as %s: %v", len(names), s.lock, s.closed, s.as, time.Since(began).Round(time.Millisecond))
		for _, w := range witnesses {
			if got := b.trials[trialKey{s.lock, s.closed, w.name}]; w.of(b, &s) && !got.passed {
				t.Errorf("behind %q alone, as %s, %s does not get through: %s", s.lock, s.as, w.name, got.what)
			}
		}
	}
}

// patience bounds an attempt. Where packets are dropped it is short: a SYN is
// sent again after a second and for minutes, and one that gets through takes a
// few milliseconds.
func patience(s *setting) time.Duration {
	if slices.Contains(s.layers, locks.Egress) {
		return env.Wait(800 * time.Millisecond)
	}
	return env.Wait(20 * time.Second)
}

// behind makes attempts in one process that is behind one lock.
func (b *bench) behind(t *testing.T, s *setting, names []string) {
	t.Helper()
	need(t, b.world.Reset())
	p, group := b.placed(t, s)
	p.Dir = b.world.Params["ws"]
	p.Argv = append([]string{b.install(t), "--batch", "patience=" + patience(s).String()}, b.world.Args(nil)...)
	p.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + b.world.Params["home"]}
	cmd, err := p.command()
	need(t, err)
	if group != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	in, err := cmd.StdinPipe()
	need(t, err)
	out, err := cmd.StdoutPipe()
	need(t, err)
	var said bytes.Buffer
	cmd.Stderr = &said
	b.world.Effects()
	b.do(func() { err = cmd.Start() })
	need(t, err)
	lines := bufio.NewScanner(out)
	for _, name := range names {
		if _, err := fmt.Fprintln(in, name); err != nil || !lines.Scan() {
			t.Errorf("behind %q as %s: no answer to %s: %v\n%s", s.lock, s.as, name, err, said.String())
			break
		}
		r := parse(t, lines.Bytes())
		if r.Errno == "unknown" || r.Errno == "SIGKILL" && !slices.Contains(s.layers, locks.Egress) {
			t.Errorf("behind %q as %s: %s was not made: %s %s", s.lock, s.as, name, r.Errno, r.Detail)
		}
		b.trials[trialKey{s.lock, s.closed, name}] = b.noted(t, name, r, s.lock == "")
	}
	if slices.Contains(s.layers, locks.Gateway) {
		time.Sleep(env.Wait(50 * time.Millisecond)) // what the gateway may be about to do
	}
	in.Close() // it may be gone
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("behind %q as %s: %v\n%s", s.lock, s.as, err, said.String())
	}
	for _, e := range b.world.Effects() {
		t.Errorf("behind %q as %s: noticed only at the end: %s", s.lock, s.as, e)
	}
}

// noted says whether an attempt got through: of one that the world would notice
// it counts what the world noticed, of any other what the program says.
func (b *bench) noted(t *testing.T, name string, r result, control bool) trial {
	t.Helper()
	a := b.attempt(name)
	effects := b.world.Effects()
	for end := time.Now().Add(env.Wait(5 * time.Millisecond)); noticeable(a) && len(effects) == 0 && time.Now().Before(end); {
		if control && r.OK {
			end = time.Now().Add(env.Wait(2 * time.Second)) // until it does
			control = false
		}
		time.Sleep(time.Millisecond)
		effects = b.world.Effects()
	}
	if slices.ContainsFunc(effects, func(e string) bool { return strings.HasPrefix(e, "file") || strings.HasPrefix(e, "attribute") }) {
		need(t, b.world.Reset())
		b.install(t)
	}
	tr := trial{made: true, passed: len(effects) > 0, what: strings.TrimSpace(fmt.Sprintf("%s %s %v", r.Errno, r.Detail, effects))}
	if !noticeable(a) {
		tr.passed = tr.passed || r.OK
	}
	return tr
}

// noticeable says whether the world outside notices that an attempt succeeded.
func noticeable(a *attempt) bool {
	switch a.Class {
	case "udp":
		return a.Name != "udp-multicast" && a.Name != "udp-broadcast"
	case "file-write":
		return a.As == "user" && a.Name != "write-open-write" && a.Name != "write-chown"
	}
	return slices.Contains([]string{"tcp", "dns", "unix"}, a.Class)
}
