// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Ids of the sandboxes that every fake backend knows.
const (
	boxRoot   = "aaaa0001" // root's, in another scope
	boxMember = "bbbb0002" // memberUID's, in the default scope
	boxScoped = "cccc0003" // memberUID's, but in another scope
	boxOther  = "dddd0004" // another member's
	memberUID = 64001
	memberGID = 64100 // the operator group
)

// fake is a Backend that records what it was asked.
type fake struct {
	access    func() Access // nil: no document
	inSandbox func(*Caller) (bool, error)
	onApply   func(c *Caller)
	onLaunch  func(ctx context.Context, r *LaunchRequest, f *Files) (Session, error)
	boxes     []Sandbox
	events    []EventRecord
	eventsErr error
	logText   string
	crowd     int // requests that stand before all others

	mu      sync.Mutex
	calls   []string
	allowed []AllowRequest
	taken   []AllowRequest
	removed []string // providers
	keys    []string
	votes   []fakeVote
}

func newFake() *fake {
	box := func(id, name, scope string, owner uint32) Sandbox {
		return Sandbox{ID: id, Name: name, Scope: scope, Owner: owner, UID: owner, State: StateRunning, Enforcement: Enforced}
	}
	return &fake{
		boxes: []Sandbox{
			box(boxRoot, "web", "org:acme/team:x/agent:web", 0),
			box(boxMember, "mine", "org:local/team:default/agent:true", memberUID),
			box(boxScoped, "scoped", "org:acme/team:x/agent:true", memberUID),
			box(boxOther, "theirs", "org:local/team:default/agent:true", memberUID+1),
		},
		events: []EventRecord{
			{Seq: 1, Sandbox: "", Line: []byte(`{"n":"node"}`)},
			{Seq: 2, Sandbox: boxRoot, Line: []byte(`{"n":"root"}`)},
			{Seq: 3, Sandbox: boxMember, Line: []byte(`{"n":"member"}`)},
			{Seq: 4, Sandbox: boxOther, Line: []byte(`{"n":"other"}`)},
			{Seq: 5, Sandbox: "ffff9999", Line: []byte(`{"n":"forgotten"}`)},
		},
		logText: "hello\n",
	}
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) Access() Access {
	if f.access != nil {
		return f.access()
	}
	return Access{}
}

func (f *fake) InSandbox(_ context.Context, c *Caller) (bool, error) {
	if f.inSandbox != nil {
		return f.inSandbox(c)
	}
	return false, nil
}

func (f *fake) Version(context.Context) (VersionInfo, error) { return VersionInfo{Version: "t"}, nil }
func (f *fake) Status(context.Context) (Status, error)       { return Status{State: Enforced}, nil }
func (f *fake) Sandboxes(context.Context) ([]Sandbox, error) { return f.boxes, nil }

func (f *fake) Owner(_ context.Context, id string) (uint32, string, bool) {
	for _, b := range f.boxes {
		if b.ID == id {
			return b.Owner, b.Scope, true
		}
	}
	return 0, "", false
}

type fakeSession struct {
	id   string
	exit Exit
	done <-chan struct{}
}

func (s fakeSession) ID() string { return s.id }

func (s fakeSession) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-s.done:
		return s.exit, nil
	case <-ctx.Done():
		return Exit{}, ctx.Err()
	}
}

func ended() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (f *fake) Launch(ctx context.Context, c *Caller, r *LaunchRequest, files *Files) (Session, error) {
	f.note("launch uid=%d argv=%s", c.UID, strings.Join(r.Argv, " "))
	if f.onLaunch != nil {
		return f.onLaunch(ctx, r, files)
	}
	files.Close()
	return fakeSession{id: "eeee0005", done: ended()}, nil
}

func (f *fake) Exec(ctx context.Context, _ *Caller, id string, r *ExecRequest, files *Files) (Session, error) {
	f.note("exec %s %s", id, strings.Join(r.Argv, " "))
	files.Close()
	return fakeSession{id: id, done: ended()}, nil
}

func (f *fake) Stop(_ context.Context, _ *Caller, id string, d time.Duration) (StopResult, error) {
	f.note("stop %s %s", id, d)
	return StopResult{Sandbox: Sandbox{ID: id}}, nil
}

func (f *fake) Log(context.Context, string, bool) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(f.logText)), nil
}

func (f *fake) Events(_ context.Context, q EventQuery) iter.Seq2[EventRecord, error] {
	return func(yield func(EventRecord, error) bool) {
		for _, e := range f.events {
			if q.Sandbox != "" && q.Sandbox != e.Sandbox {
				continue
			}
			if !yield(e, nil) {
				return
			}
		}
		if f.eventsErr != nil {
			yield(EventRecord{}, f.eventsErr)
		}
	}
}

func (f *fake) Explain(_ context.Context, id string, sees func(sandbox, scope string) bool) (Explanation, error) {
	box := map[string]string{"e-member": boxMember, "e-root": boxRoot}[id]
	if box != "" && sees(box, "") {
		return Explanation{ID: id, Sandbox: box, Summary: "no"}, nil
	}
	return Explanation{}, Errorf(CodeNotFound, "no event %q", id)
}

func (f *fake) Allow(_ context.Context, _ *Caller, r *AllowRequest) (AllowResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed = append(f.allowed, *r)
	return AllowResult{Rule: r.Destination, Effective: true}, nil
}

func (f *fake) TakeBack(_ context.Context, _ *Caller, r *AllowRequest) (TakenBack, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken = append(f.taken, *r)
	return TakenBack{Rules: []GivenRule{{Destination: r.Destination}}, Effective: true}, nil
}

func (f *fake) RemoveProvider(_ context.Context, _ *Caller, name string) (ProviderRemoved, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, name)
	return ProviderRemoved{Name: name}, nil
}

func (f *fake) Budgets(context.Context) ([]Budget, error) {
	return []Budget{
		{Name: "eng/month", Scope: "org:local/team:default", Who: "org:local/team:default", Limit: 9},
		{Name: "eng/each", Scope: "org:local/team:default", Who: "org:local/team:default/agent:a", Limit: 9},
		{Name: "all/day", Scope: "org:local", Who: "org:local", Limit: 9},
		{Name: "all/day", Scope: "org:other", Who: "org:other", Limit: 9},
	}, nil
}

func (f *fake) IncreaseBudget(_ context.Context, _ *Caller, r *BudgetIncrease) (BudgetIncreased, error) {
	return BudgetIncreased{Name: r.Name, Scope: r.Scope}, nil
}

func (f *fake) Providers(context.Context) ([]Provider, error) { return nil, nil }

func (f *fake) Inference(context.Context) (InferenceStatus, error) { return InferenceStatus{}, nil }

func (f *fake) AddProvider(_ context.Context, _ *Caller, r *ProviderRequest) (Provider, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = append(f.keys, r.Key.Reveal())
	return Provider{Name: r.Name, HasSecret: r.Key != ""}, nil
}

func (f *fake) CheckPolicy(_ context.Context, d []Document) (CheckResult, error) {
	return CheckResult{OK: true, Problems: []Problem{}}, nil
}

func (f *fake) Policy(_ context.Context, id string) (PolicyView, error) {
	return PolicyView{Revision: 7}, nil
}

func (f *fake) PolicyUse(context.Context) (PolicyUse, error) { return PolicyUse{Revision: 7}, nil }

func (f *fake) ApplyPolicy(_ context.Context, c *Caller, r *ApplyRequest) (PolicyChange, error) {
	f.note("apply uid=%d %s %s", c.UID, r.Documents[0].File, r.Comment)
	if f.onApply != nil {
		f.onApply(c)
	}
	return PolicyChange{Revision: 8}, nil
}

func (f *fake) DeletePolicy(_ context.Context, _ *Caller, name, _ string) (PolicyChange, error) {
	f.note("delete %s", name)
	return PolicyChange{Revision: 9}, nil
}

func (f *fake) Enforced(_ context.Context, _ *Caller, revision uint64, timeout time.Duration) (Enforcement, error) {
	f.note("enforced %d %s", revision, timeout)
	return Enforcement{Revision: revision, InForce: true}, nil
}

func (f *fake) StoredDocuments(_ context.Context, name string, revision uint64) (StoredDocuments, error) {
	f.note("documents %q %d", name, revision)
	return StoredDocuments{Revision: 9}, nil
}

func (f *fake) Revisions(_ context.Context, q RevisionQuery) (Revisions, error) {
	f.note("history %+v", q)
	return Revisions{}, nil
}

func (f *fake) PolicyDiff(_ context.Context, from, to uint64) (PolicyDiff, error) {
	f.note("diff %d %d", from, to)
	return PolicyDiff{From: from, To: to}, nil
}

func (f *fake) RollbackPolicy(_ context.Context, c *Caller, r *RollbackRequest) (PolicyChange, error) {
	f.note("rollback uid=%d %+v", c.UID, *r)
	return PolicyChange{Revision: 10}, nil
}

func (f *fake) Costs(_ context.Context, q CostQuery) (Costs, error) {
	f.note("costs %+v", q)
	row := func(day, org, team, agent, model string, nano uint64) CostRow {
		return CostRow{Day: day, Org: org, Team: team, Agent: agent, Provider: "p", Model: model, Calls: 1, CostNanoUSD: nano, TokensIn: 2 * nano}
	}
	return Costs{SummedUpTo: 9, Missed: 2, Rows: []CostRow{row("2026-11-29", "acme", "x", "web", "m", 1), row("2026-11-30", "acme", "x", "web", "m", 2),
		row("2026-11-30", "acme", "x", "other", "n", 4), row("2026-11-30", "acme", "y", "web", "m", 8), row("2026-11-30", "local", "default", "true", "m", 16), row("2026-11-30", "", "", "", "m", 32)}}, nil
}

func (f *fake) Prices(context.Context) (Prices, error) {
	return Prices{Tables: []PriceTable{{Version: "v"}}}, nil
}

func (f *fake) AddPrices(_ context.Context, c *Caller, r *PricesRequest) (PriceTable, error) {
	f.note("prices uid=%d %s", c.UID, r.Text)
	return PriceTable{Version: "v"}, nil
}

func (f *fake) RemovePrices(_ context.Context, c *Caller, version string) error {
	f.note("no prices uid=%d %s", c.UID, version)
	return nil
}

func (f *fake) Doctor(context.Context) (DoctorReport, error) {
	return DoctorReport{}, errors.New("probe broke")
}

func (f *fake) VerifyAudit(context.Context) (AuditReport, error) { return AuditReport{OK: true}, nil }

// serve runs a server for b on a socket that everybody may connect to.
func serve(t *testing.T, b Backend, o Options) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rfapi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the test's peers have other uids
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(socket, 0o666); err != nil { //nolint:gosec // likewise
		t.Fatal(err)
	}
	o.Backend = b
	if o.OperatorGID == 0 {
		o.OperatorGID = memberGID
		if os.Geteuid() != 0 {
			o.OperatorGID = os.Getegid()
		}
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

func needRootTest(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("needs root to become other users")
}

func (f *fake) Adopt(_ context.Context, _ *Caller, r *AdoptRequest) (Adopted, error) {
	return Adopted{Sandbox: Sandbox{ID: "eeee0005", Name: r.Name, Scope: r.Scope, Adopted: true}, Ended: 2}, nil
}

func (f *fake) Release(_ context.Context, _ *Caller, id string) (Sandbox, error) {
	return Sandbox{ID: id, State: StateStopped}, nil
}
