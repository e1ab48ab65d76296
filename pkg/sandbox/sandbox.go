// SPDX-License-Identifier: Apache-2.0

// Package sandbox is the life of sandboxes: launch, run, take over after a restart
// of the keeper, stop, hand the workspace back. It owns each sandbox's cgroup,
// namespaces, listeners, names and certificate authority.
package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/ca"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
	"github.com/ringfence/ringfence/pkg/workspace"
)

// State of a sandbox in its life.
type State string

const (
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Stopped  State = "stopped"
)

// Exit is how a sandbox ended. Code is as a shell reports it; -1 when it could
// not be learned (the keeper was away, on kernels before 6.15).
type Exit struct {
	Code     int
	Findings []workspace.Finding
	At       time.Time
	Why      string // for what the keeper ended it, "" if it did not
	Released bool   // it was adopted: its processes go on without a fence
}

// Sandbox is one living sandbox.
type Sandbox struct {
	// Immutable after launch or adoption.
	Record    Record
	Principal scope.Principal
	dir       string
	m         *Manager
	names     *Names
	authority *ca.Authority
	listeners *Listeners
	fence     *kernel.Sandbox
	uid       *UID
	handback  *handback
	ended     chan struct{} // closed when no process is left and the workspace was handed back; exit is final then
	done      chan struct{} // closed when everything is gone
	netns     *os.File      // of adopted processes; nil for others, and if no process showed it any more
	released  chan struct{} // of adopted processes: closed when their fence is to go
	releasing sync.Once     // for released

	// What the readers of records ask for waits for nobody.
	view    atomic.Pointer[policy.View]
	denials atomic.Uint64
	fails   atomic.Uint64

	mu         sync.Mutex // guards what follows; held while the kernel's tables and the journal are written
	state      State
	table      uint32 // which entries of the kernel's tables count; see tables.go
	control    *control
	open       map[netip.Addr][]kernel.NameEntry // what the kernel lets through, by virtual address
	addrs      uint64                            // digest of the address rules beside them; 0: what a former keeper wrote
	noAddrs    bool                              // there were more than there is room for: none is there
	exit       Exit
	problems   []string        // what else is wrong with it
	found      differences     // what the last attestation found
	attested   time.Time       // when that was
	sus        suspicions      // what goes with it
	written    bool            // this keeper wrote the table that is in use
	lookAt     int             // entry of it at which the next look goes on
	sighting   Sighting        // of adopted processes
	looking    bool            // a look at them is under way
	lookSince  time.Time       // since then
	lateSaid   bool            // it was reported that this takes too long
	lookFrom   int             // pid at which the next one begins
	powersFrom int             // the same, for what they may do
	hung       *hand           // the thread of a look that did not come back
	members    map[int]Process // those that were seen in the cgroup; only the look under way uses it
	heldTold   bool            // that a process keeps a socket locked, see revoke.go
	closed     time.Time       // when a switch last closed something that may be open still; see revoke.go
	why        string          // for what the keeper ended it, "" if it did not

	wildcards wildcardBudget
	torn      bool // nothing runs any more, and its tables are being dropped
	forgotten bool // the gateway is no longer to serve it
	stuckSaid bool // it was reported that its processes do not end
	unchecked bool // it was reported that its workspace will not be checked
}

func (s *Sandbox) isForgotten() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forgotten
}

// State returns where the sandbox is in its life.
func (s *Sandbox) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Runs says whether the agent was let go and may have processes still.
func (s *Sandbox) Runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.state == Running || s.state == Stopping) && !s.forgotten
}

// Done is closed when the sandbox and everything it held are gone.
func (s *Sandbox) Done() <-chan struct{} { return s.done }

// Ended is closed when no process is left and the workspace was handed back;
// what the sandbox held in the kernel is removed after that.
func (s *Sandbox) Ended() <-chan struct{} { return s.ended }

// Exit returns how it ended; valid after Ended.
func (s *Sandbox) Exit() Exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// Denials counts what was refused so far.
func (s *Sandbox) Denials() uint64 { return s.denials.Load() }

// CountDenial adds n refusals. It never waits.
func (s *Sandbox) CountDenial(n uint64) { s.denials.Add(n) }

// Failures counts what was let through and failed so far.
func (s *Sandbox) Failures() uint64 { return s.fails.Load() }

// CountFailure adds n failures of what was let through. It never waits.
func (s *Sandbox) CountFailure(n uint64) { s.fails.Add(n) }

// Problems lists what is wrong with the sandbox besides its walls, of which
// Layers tells; and, of adopted processes, what is wrong with the one wall that
// they have.
func (s *Sandbox) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.problems)
	if s.Record.Foreign == nil {
		return out
	}
	if broken := s.found.broken(); len(broken) > 0 {
		out = append(out, broken.String())
	}
	return out
}

// View is the policy in force for this sandbox. It never waits.
func (s *Sandbox) View() *policy.View { return s.view.Load() }

// viewOf is what a snapshot says to this sandbox.
func (s *Sandbox) viewOf(snap *policy.Snapshot) *policy.View {
	v := snap.View(s.Principal)
	if s.Record.Learns {
		return v.Learning()
	}
	return v
}

// Name returns the name behind a virtual address of this sandbox. It never
// waits.
func (s *Sandbox) Name(a netip.Addr) string { return s.names.Name(a) }

// Resolve decides what a name means for this sandbox. When policy could let
// any of its ports through it gets its virtual address, and the kernel knows
// which ports before the answer is given.
func (s *Sandbox) Resolve(name string) (wire.ResolveReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.torn {
		return wire.ResolveReply{}, errors.New("the sandbox has ended")
	}
	d := s.View().Name(name)
	r := wire.ResolveReply{Allowed: d.Resolves, Reason: d.Decision.Reason, ReasonCode: d.Decision.ReasonCode,
		Rule: d.Decision.Rule.String(), RuleAt: ruleAt(d.Decision.Rule), Revision: d.Decision.Revision}
	if !d.Resolves {
		return r, nil
	}
	if d.Wildcard && !s.names.Has(d.Name) {
		if why := s.wildcards.spend(d.Name, time.Now()); why != "" {
			return wire.ResolveReply{Reason: why, ReasonCode: "wildcard-budget", Rule: r.Rule, RuleAt: r.RuleAt, Revision: r.Revision}, nil
		}
	}
	var err error
	r.Addr, err = s.openName(d)
	return r, err
}

// openName gives a name its address, and the kernel its ports.
func (s *Sandbox) openName(d policy.NameDecision) (netip.Addr, error) {
	if s.names.Has(d.Name) {
		if addr, _, err := s.names.Allocate(d.Name); err != nil || s.open[addr] != nil {
			return addr, err
		}
	}
	var n entries
	n.add(len(d.Ports), d.Wildcard)
	if !s.m.names.more(s.Record.Number, s.Record.Owner, n) {
		return netip.Addr{}, ErrNoNameRoom
	}
	addr, _, err := s.names.Allocate(d.Name)
	if err != nil {
		s.m.names.more(s.Record.Number, s.Record.Owner, entries{-n.named, -n.wild})
		return netip.Addr{}, err
	}
	ports := NameEntries(addr, d)
	if err := s.m.o.Fence.PutNames(s.table, ports); err != nil {
		s.m.names.more(s.Record.Number, s.Record.Owner, entries{-n.named, -n.wild})
		return netip.Addr{}, fmt.Errorf("open %s in the kernel: %w", d.Name, err)
	}
	s.open[addr] = ports
	return addr, nil
}

// NameEntries are the ports of a name that the kernel steers to the gateway, which
// lets pass or, where an approval is needed, refuses with that word.
func NameEntries(addr netip.Addr, d policy.NameDecision) []kernel.NameEntry {
	var out []kernel.NameEntry
	for _, p := range d.Ports {
		if p.Decision.Effect != policy.Block {
			out = append(out, kernel.NameEntry{Addr: addr, Port: p.Port, Proto: uint8(p.Proto), Rule: p.Decision.Rule.Num})
		}
	}
	return out
}

func ruleAt(r policy.RuleRef) string {
	if r.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}

// Leaf signs a certificate for a name that this sandbox may speak to, or, in
// profiles with explain, for one whose refusal is explained to it.
func (s *Sandbox) Leaf(name string, point []byte, now time.Time) (leaf, issuer []byte, err error) {
	if !s.Record.Explain && !s.View().Name(name).Resolves {
		return nil, nil, fmt.Errorf("policy does not let this sandbox speak to %q", name)
	}
	leaf, err = s.authority.Leaf(name, point, now)
	return leaf, s.authority.DER(), err
}

// CA is the certificate, in PEM, of who signs this sandbox's leaves.
func (s *Sandbox) CA() []byte { return s.authority.PEM() }

// announcement is what the gateway must know.
func (s *Sandbox) announcement() wire.SandboxAdd {
	return wire.SandboxAdd{ID: s.Record.Number, Name: s.Record.ID, Scope: s.Principal.String(), Owner: s.Record.Owner, Explain: s.Record.Explain, Redirected: s.Record.Foreign != nil, Learns: s.Record.Learns}
}
