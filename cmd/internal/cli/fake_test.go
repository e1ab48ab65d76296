// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/price"
)

var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeNode is a daemon and an init in one: it runs the program unfenced and
// speaks the status protocol. hostile, if set, replaces init.
type fakeNode struct {
	socket string
	server *api.Server

	wg sync.WaitGroup

	mu       sync.Mutex // guards what follows
	hostile  func(c *confine.Conn)
	launches []api.LaunchRequest
	allows   []api.AllowRequest
	backs    []api.AllowRequest // allow --remove
	keys     []string
	events   [][]byte
	boxes    []api.Sandbox
	votes    []api.VoteRequest
	lasting  []string // what was to become a rule
}

func startNode(t *testing.T) *fakeNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "rfcli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &fakeNode{socket: filepath.Join(dir, "s"), boxes: []api.Sandbox{
		{ID: "b0a1c2d3", Name: "web", Scope: "org:local/team:default/agent:npm", Profile: "coding", State: api.StateRunning,
			Enforcement: api.Degraded, Parts: []api.Part{{Name: "memory", State: api.Unenforced}}, PID: 4711, Created: created},
		{ID: "c1d2e3f4", Name: "evil\x1b[2J", Scope: "org:local/team:default/agent:x", Profile: "default", State: api.StateStopped, Created: created},
	}}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if n.server, err = api.NewServer(api.Options{Backend: n, OperatorGID: os.Getegid()}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = n.server.Serve(l) }()
	t.Cleanup(func() { n.kill(); <-done; n.wg.Wait() })
	return n
}

// set changes the node under its lock.
func (n *fakeNode) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *fakeNode) lines() [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([][]byte(nil), n.events...)
}

func (n *fakeNode) init() func(c *confine.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hostile
}

func (n *fakeNode) lastLaunch() api.LaunchRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.launches[len(n.launches)-1]
}

// kill ends the daemon; programs go on.
func (n *fakeNode) kill() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = n.server.Close(ctx)
}

func (n *fakeNode) Access() api.Access { return api.Access{} }

func (n *fakeNode) InSandbox(context.Context, *api.Caller) (bool, error) { return false, nil }
func (n *fakeNode) Version(context.Context) (api.VersionInfo, error) {
	return api.VersionInfo{Version: "1.2.3", Kernel: "6.18"}, nil
}

func (n *fakeNode) Status(context.Context) (api.Status, error) {
	return api.Status{Version: "1.2.3", Started: created, State: api.Degraded, Revision: 4,
		Parts: []api.Part{{Name: "gateway", State: api.Degraded, Detail: "restarting"}}}, nil
}

func (n *fakeNode) Sandboxes(context.Context) ([]api.Sandbox, error) { return n.boxes, nil }
func (n *fakeNode) Owner(context.Context, string) (uint32, string, bool) {
	return 0, "", false
}

type fakeSession struct {
	done <-chan int
	exit api.Exit
}

func (s *fakeSession) ID() string { return "b0a1c2d3" }

func (s *fakeSession) Wait(ctx context.Context) (api.Exit, error) {
	select {
	case code := <-s.done:
		e := s.exit
		e.Code = code
		return e, nil
	case <-ctx.Done():
		return api.Exit{}, ctx.Err()
	}
}

func statusConn(f *api.Files) (*confine.Conn, error) {
	if f.Status == nil {
		return nil, nil //nolint:nilnil // detached
	}
	rc, err := f.Status.SyscallConn()
	if err != nil {
		return nil, err
	}
	dup := -1
	var derr error
	if err := rc.Control(func(fd uintptr) { dup, derr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, derr
	}
	return confine.NewConn(dup)
}

func (n *fakeNode) Launch(_ context.Context, _ *api.Caller, r *api.LaunchRequest, f *api.Files) (api.Session, error) {
	n.mu.Lock()
	n.launches = append(n.launches, *r)
	n.mu.Unlock()
	return n.start(r.Argv, r.TTY, r.Rows, r.Cols, f)
}

func (n *fakeNode) Exec(_ context.Context, _ *api.Caller, _ string, r *api.ExecRequest, f *api.Files) (api.Session, error) {
	return n.start(r.Argv, r.TTY, r.Rows, r.Cols, f)
}

func (n *fakeNode) start(argv []string, tty bool, rows, cols uint16, f *api.Files) (api.Session, error) {
	defer f.Close()
	switch argv[0] {
	case "missing-feature":
		return nil, &api.LaunchFailure{Code: 125, Message: "the sandbox was not established", Missing: "Landlock ABI 6", Remedy: "upgrade the kernel to 6.12"}
	case "nowhere":
		return nil, &api.LaunchFailure{Code: 127, Message: "nowhere: not found"}
	case "noexec":
		return nil, &api.LaunchFailure{Code: 126, Message: "noexec: not executable"}
	case "plain-error":
		return nil, errors.New("disk \x1b[2J on fire")
	}
	c, err := statusConn(f)
	if err != nil {
		return nil, err
	}
	done := make(chan int, 1)
	s := &fakeSession{done: done}
	for _, line := range n.lines() {
		if h, err := event.PeekOCSF(line); err == nil && h.Denial() {
			s.exit.Denials++
		} else if err == nil && h.Failure() {
			s.exit.Failures++
		}
	}
	if hostile := n.init(); hostile != nil {
		n.wg.Go(func() { hostile(c); _ = c.Close(); done <- 9 })
		return s, nil
	}
	if c == nil {
		done <- 0
		return s, nil
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:gosec // the test's own
	var own *os.File
	if tty {
		master, slave, err := pty.Open()
		if err != nil {
			return nil, err
		}
		_ = pty.Setsize(master, &pty.Winsize{Rows: rows, Cols: cols})
		cmd.Stdin, cmd.Stdout, cmd.Stderr, own = slave, slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := c.Send(confine.Frame{Type: confine.FramePtyMaster}, nil, master); err != nil {
			return nil, err
		}
		_ = master.Close()
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = f.Stdio[0], f.Stdio[1], f.Stdio[2]
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if own != nil {
		_ = own.Close()
	}
	_ = c.Send(confine.Frame{Type: confine.FrameStarted, Pid: 2}, nil)
	go func() {
		for {
			m, err := c.Recv()
			if err != nil {
				return
			}
			if m.Type == confine.FrameSignal {
				_ = cmd.Process.Signal(syscall.Signal(m.Status))
			}
			m.Close()
		}
	}()
	n.wg.Go(func() {
		_ = cmd.Wait()
		code := cmd.ProcessState.ExitCode()
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
		_ = c.Send(confine.Frame{Type: confine.FrameExited, Status: int32(code)}, nil)
		_ = c.Close()
		done <- code
	})
	return s, nil
}

func (n *fakeNode) Stop(_ context.Context, _ *api.Caller, id string, _ time.Duration) (api.StopResult, error) {
	return api.StopResult{Sandbox: api.Sandbox{ID: id, State: api.StateStopped, Created: created},
		Findings: []api.Finding{{Path: ".git/config\x1b", What: "core.fsmonitor runs a program", Action: "quarantined", Copy: ".ringfence-quarantine/b0a1c2d3/0001-config"}}}, nil
}

func (n *fakeNode) Log(context.Context, string, bool) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("line\x1b]0;t\a\n")), nil
}

func (n *fakeNode) Events(_ context.Context, q api.EventQuery) iter.Seq2[api.EventRecord, error] {
	return func(yield func(api.EventRecord, error) bool) {
		for i, line := range n.lines() {
			h, _ := event.PeekOCSF(line)
			if q.Denied || q.Failed {
				if !(q.Denied && h.Denial() || q.Failed && h.Failure()) {
					continue
				}
			}
			if !yield(api.EventRecord{Seq: uint64(i), Sandbox: "b0a1c2d3", Line: line}, nil) {
				return
			}
		}
	}
}

func (n *fakeNode) Explain(_ context.Context, id string, _ func(sandbox, scope string) bool) (api.Explanation, error) {
	if id == "secret" {
		return api.Explanation{}, api.Errorf(api.CodeDenied, "not yours")
	}
	if id == "found" {
		return api.Explanation{ID: id, Verdict: "observed", Kind: "tamper", Layer: "keeper", Summary: "web: an adopted process may leave its cgroup", Detail: "process 7", Remedy: "run it elsewhere"}, nil
	}
	return api.Explanation{ID: id, Kind: "network", Verdict: "denied", Summary: "tcp evil\x1b.example:443 was refused", Rule: "eng/no-paste", RuleAt: "eng.yaml:7",
		Revision: 4, Remedy: "ringfence allow evil.example:443"}, nil
}

func (n *fakeNode) Allow(_ context.Context, _ *api.Caller, r *api.AllowRequest) (api.AllowResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.allows = append(n.allows, *r)
	res := api.AllowResult{Rule: "- {id: allow-1, allow: \"" + r.Destination + "\"}\n", Document: "allow", Sandbox: r.Sandbox, Scope: r.Scope, Revision: 5, Effective: true}
	if r.Destination == "pastebin.com:443" {
		res.Effective, res.Note = false, "org rule no-paste denies it"
	}
	return res, nil
}

func (n *fakeNode) TakeBack(_ context.Context, _ *api.Caller, r *api.AllowRequest) (api.TakenBack, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.backs = append(n.backs, *r)
	if r.Destination == "nosuch.example:443" {
		e := api.Errorf(api.CodeNotFound, "sandbox %s has no rule for %s that `ringfence allow` gave", r.Sandbox, r.Destination)
		e.Detail = "it has a.example:443 (once)"
		return api.TakenBack{}, e
	}
	res := api.TakenBack{Sandbox: r.Sandbox, Scope: r.Scope, Revision: 6, Effective: true,
		Rules: []api.GivenRule{{Destination: r.Destination, Document: "allow-a", Mode: api.AllowSandbox}, {Destination: r.Destination, Document: "allow-a.once-1", Mode: api.AllowOnce}}}
	if r.Destination == "pastebin.com:443" {
		res.Effective, res.Note = false, "the rule eng/paste\x1b (eng.yaml:7) allows it"
	}
	return res, nil
}

func (n *fakeNode) RemoveProvider(_ context.Context, _ *api.Caller, name string) (api.ProviderRemoved, error) {
	if name == "house" {
		return api.ProviderRemoved{}, api.Errorf(api.CodeConflict, "the provider %q was not made by `ringfence provider add`: it stands in /etc/house.yaml:3", name)
	}
	return api.ProviderRemoved{Name: name, Document: "/state/provider-" + name + ".yaml", KeptKey: "/etc/x.yaml", Revision: 6, Note: "the trial provider answers"}, nil
}

func (n *fakeNode) Inference(context.Context) (api.InferenceStatus, error) {
	return api.InferenceStatus{Places: []api.InferencePlace{
		{Provider: "eu", Model: "gpt-*", Key: "eu-1", State: "open", ProbedIn: api.Duration(4 * time.Second), Why: "503"},
		{Provider: "us", Model: "*", Key: "us-1", State: "closed", Latency: api.Duration(120 * time.Millisecond), Running: 2},
	}}, nil
}

func (n *fakeNode) Costs(context.Context, api.CostQuery) (api.Costs, error) {
	return api.Costs{SummedUpTo: 120, Missed: 3, Rows: []api.CostRow{
		{Day: "2026-11-29", Org: "acme", Team: "pay", Agent: "bot", Provider: "openai", Model: "gpt-x", Calls: 3, CostNanoUSD: 1_234_567, TokensIn: 300, Cached: 100, TokensOut: 30},
		{Day: "2026-11-30", Org: "acme", Team: "hr", Agent: "bot", Provider: "openai", Model: "=cmd()", Calls: 2, Unpriced: 2, Estimated: 1, TokensIn: 5, TokensOut: 7},
		{Day: "2026-11-30", Org: "acme", Team: "pay", Agent: "bot", Provider: "anthropic", Model: "claude-x", Calls: 1, CostNanoUSD: 2_000_000_000, TokensIn: 9000, TokensOut: 40, CacheWrite1h: 8000},
	}}, nil
}

func (n *fakeNode) Prices(context.Context) (api.Prices, error) {
	return api.Prices{Tables: []api.PriceTable{{Version: "2026-11", Effective: created, Source: "ours\x1b[2J", Models: 2, Added: created, Author: "uid=0(root)"}}}, nil
}

func (n *fakeNode) AddPrices(_ context.Context, _ *api.Caller, r *api.PricesRequest) (api.PriceTable, error) {
	t, err := price.Parse(r.File, []byte(r.Text))
	if err != nil {
		return api.PriceTable{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	return api.PriceTable{Version: t.Version, Effective: t.Effective, Source: t.Source, Models: len(t.Models)}, nil
}

func (n *fakeNode) RemovePrices(_ context.Context, _ *api.Caller, version string) error {
	if version != "2026-11" {
		return api.Errorf(api.CodeNotFound, "there is no price table %q", version)
	}
	return nil
}

func (n *fakeNode) Providers(context.Context) ([]api.Provider, error) {
	return []api.Provider{{Name: "openai", Dialect: "openai", BaseURL: "https://api.openai.com/v1", Credential: "inject", HasSecret: true, Models: []string{"gpt-*"}}}, nil
}

func (n *fakeNode) AddProvider(_ context.Context, _ *api.Caller, r *api.ProviderRequest) (api.Provider, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keys = append(n.keys, r.Key.Reveal())
	return api.Provider{Name: r.Name, Dialect: "openai", BaseURL: "https://x", HasSecret: r.Key != ""}, nil
}

func (n *fakeNode) CheckPolicy(context.Context, []api.Document) (api.CheckResult, error) {
	return api.CheckResult{OK: true}, nil
}

func (n *fakeNode) Budgets(context.Context) ([]api.Budget, error) {
	return []api.Budget{
		{Name: "eng/month", Scope: "org:local", Who: "org:local/team:default/agent:npm", Hard: true, Window: "month", From: created, Until: created.AddDate(0, 1, 0), Limit: 550e9, Increased: 50e9, Spent: 410_500_000_000, Leased: 2e9, Left: 137_500_000_000, Alert: 80},
		{Name: "eng/big", Scope: "org:local", Who: "org:local", Model: "evil\x1b[2J", Window: "24h0m0s", From: created, Until: created.Add(time.Hour), Limit: 1e9, Left: 1e9},
	}, nil
}

func (n *fakeNode) IncreaseBudget(_ context.Context, _ *api.Caller, r *api.BudgetIncrease) (api.BudgetIncreased, error) {
	return api.BudgetIncreased{Name: r.Name, Scope: r.Scope, Until: created.Add(time.Duration(r.For))}, nil
}

func (n *fakeNode) PolicyUse(context.Context) (api.PolicyUse, error) {
	return api.PolicyUse{Revision: 7, Sandboxes: 2, KernelBytes: 4096 << 10, NameBytes: 80, AddressBytes: 72, Documents: []api.PolicyDocument{{Kind: "Policy", Name: "eng", Scope: "org:local", File: "eng.yaml"}, {Kind: "Provider", Name: "anthropic", File: "Provider/anthropic"}}, Rules: []api.RuleUse{
		{Rule: "builtin/models", Scope: "builtin", Section: "inference", Effect: "allow", Target: "models of the configured providers", GatewayHits: 3},
		{Rule: "eng/read", Scope: "org:local", Section: "egress", Effect: "allow", Target: "api.test:443/tcp", Sandboxes: 2, Entries: 2, KernelBytes: 160, KernelHits: 5, GatewayHits: 4},
		{Rule: "eng/no", Scope: "org:local", Section: "egress", Effect: "block", Target: "192.0.2.0/24", Sandboxes: 1, Entries: 1, KernelBytes: 72, KernelHits: 9},
	}}, nil
}

func (n *fakeNode) Policy(context.Context, string) (api.PolicyView, error) {
	return api.PolicyView{Revision: 4, Documents: []api.PolicyDocument{{Kind: "Policy", Name: "eng", Scope: "org:acme", File: "eng.yaml"}}}, nil
}

func (n *fakeNode) ApplyPolicy(_ context.Context, _ *api.Caller, r *api.ApplyRequest) (api.PolicyChange, error) {
	docs := r.Documents
	if strings.Contains(docs[0].Text, "alow") {
		return api.PolicyChange{}, api.Errorf(api.CodeBadRequest, "%s:6:12: unknown field", docs[0].File).WithRemedy("nothing was applied")
	}
	return api.PolicyChange{Revision: 8, Documents: []api.PolicyDocument{{Kind: "Policy", Name: "eng", File: docs[0].File}}}, nil
}

func (n *fakeNode) DeletePolicy(_ context.Context, _ *api.Caller, name, _ string) (api.PolicyChange, error) {
	return api.PolicyChange{Revision: 9, Documents: []api.PolicyDocument{{Kind: "Policy", Name: name, File: "Policy/" + name}}}, nil
}

func (n *fakeNode) StoredDocuments(_ context.Context, name string, revision uint64) (api.StoredDocuments, error) {
	if name == "nosuch" {
		return api.StoredDocuments{}, api.Errorf(api.CodeNotFound, "no document %q is in force", name)
	}
	if revision == 3 || revision == 4 { // in 4, what was applied gives way to the directory
		docs := []api.StoredDocument{{Kind: "Policy", Name: "eng", Scope: "org:acme", Owner: "api", File: "applied-policy-eng.yaml", Text: testedPolicy}}
		if revision == 4 {
			docs = append(docs, api.StoredDocument{Kind: "Policy", Name: "eng", Scope: "org:acme", Owner: "directory", File: "house.yaml", Text: strings.Replace(testedPolicy, "db.example", "dc.example", 1)})
		}
		return api.StoredDocuments{Revision: revision, Documents: docs}, nil
	}
	return api.StoredDocuments{Revision: 9, Documents: []api.StoredDocument{
		{Kind: "Policy", Name: "eng", Scope: "org:local", Owner: "api", File: "applied-policy-eng.yaml", Text: "kind: Policy # eng"},
		{Kind: "Policy", Name: "eng", Scope: "org:acme", Owner: "directory", File: "house.yaml", Text: "kind: Policy # of acme\n"},
	}}, nil
}

func (n *fakeNode) Revisions(_ context.Context, q api.RevisionQuery) (api.Revisions, error) {
	root := int64(0)
	return api.Revisions{Revisions: []api.Revision{
		{Number: 9, Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Author: "root", UID: &root, PID: 812, Program: "ring\x1bfence", Action: "rollback", Comment: "revision 7: bad\x1b day", Changes: []api.DocumentChange{
			{Kind: "Policy", Name: "eng", Scope: "org:local", Owner: "api", File: "applied-policy-eng.yaml", Change: "changed", BeforeHash: "aa", AfterHash: "bb"},
			{Kind: "Policy", Name: "new", Scope: "org:local", Owner: "api", File: "applied-policy-new.yaml", Change: "removed", BeforeHash: "cc"}}},
		{Number: 7, Time: time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC), Author: "directory", Action: "directory", Changes: []api.DocumentChange{
			{Kind: "Policy", Name: "house", Scope: "org:acme", Owner: "directory", File: "house.yaml", Change: "added", AfterHash: "dd"}}},
	}[:min(q.Limit, 2)]}, nil
}

func (n *fakeNode) PolicyDiff(_ context.Context, from, to uint64) (api.PolicyDiff, error) {
	d := api.PolicyDiff{From: from, To: max(to, from), Changes: []api.DocumentChange{}}
	if to == 0 {
		d.To = 9
		d.Changes = []api.DocumentChange{
			{Kind: "Policy", Name: "eng", Scope: "org:local", Owner: "api", File: "applied-policy-eng.yaml", Change: "changed", Before: "a\n\tb\x1b\n", After: "a\n\tc\n"},
			{Kind: "Policy", Name: "house", Scope: "org:acme", Owner: "directory", File: "house.yaml", Change: "added", After: "x\n"}}
	}
	return d, nil
}

func (n *fakeNode) RollbackPolicy(_ context.Context, _ *api.Caller, r *api.RollbackRequest) (api.PolicyChange, error) {
	if !r.APIOnly && r.Revision == 3 {
		return api.PolicyChange{}, api.Errorf(api.CodeConflict, "since revision 3 the policy directory has changed")
	}
	return api.PolicyChange{Revision: 10, Documents: []api.PolicyDocument{{Kind: "Policy", Name: "eng", File: "Policy/eng", Change: "changed"}, {Kind: "Policy", Name: "new", File: "Policy/new", Change: "removed"}},
		Notes: []string{"the provider x is back without its key"}}, nil
}

// Enforced: revision 9 is late in one sandbox.
func (n *fakeNode) Enforced(_ context.Context, _ *api.Caller, revision uint64, timeout time.Duration) (api.Enforcement, error) {
	e := api.Enforcement{Revision: revision, InForce: revision != 9, Sandboxes: 2}
	if revision == 9 {
		e.Sandboxes, e.Behind = 1, []api.Behind{{ID: "b0a1c2d3", Name: "we\x1bb", Kernel: 8}}
	}
	return e, nil
}

func (n *fakeNode) Doctor(context.Context) (api.DoctorReport, error) {
	return api.DoctorReport{OK: true, Checks: []api.Check{{Name: "btf", OK: true},
		{Name: "bpf-lsm", Optional: true, Have: "off", Need: "lsm=bpf", Remedy: "add bpf to lsm="}}}, nil
}

func (n *fakeNode) VerifyAudit(context.Context) (api.AuditReport, error) {
	return api.AuditReport{OK: false, State: "tampered", Text: "tampered: segment x, line 3"}, nil
}

// deniedLine is one event line of a refusal.
func deniedLine(t *testing.T, e event.Event) []byte {
	t.Helper()
	e.Verdict = event.Denied
	return eventLine(t, e)
}

// failedLine is one event line of what was allowed and failed.
func failedLine(t *testing.T, e event.Event) []byte {
	t.Helper()
	e.Verdict, e.Failed = event.Allowed, true
	return eventLine(t, e)
}

func eventLine(t *testing.T, e event.Event) []byte {
	t.Helper()
	e.Time, e.Sandbox, e.Scope = time.Now(), "b0a1c2d3", "org:local/team:default/agent:sh"
	b, err := e.AppendOCSF(nil, event.Node{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (n *fakeNode) Adopt(_ context.Context, _ *api.Caller, r *api.AdoptRequest) (api.Adopted, error) {
	return api.Adopted{Sandbox: api.Sandbox{ID: "eeee0005", Name: r.Name, Scope: r.Scope, Adopted: true}, Ended: 2}, nil
}

func (n *fakeNode) Release(_ context.Context, _ *api.Caller, id string) (api.Sandbox, error) {
	return api.Sandbox{ID: id, State: api.StateStopped}, nil
}
