// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/seccomp"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Fence is what the manager needs of the kernel.
type Fence interface {
	AttachEmpty(cgroup string, number uint32) (*kernel.Sandbox, error)
	TakeOverSandbox(cgroup string, id uint32) (*kernel.Sandbox, error)
	PutNames(policy uint32, entries []kernel.NameEntry) error
	DeleteNames(policy uint32, entries []kernel.NameEntry) error
	PutCIDRs(policy uint32, entries []kernel.CIDREntry) error
	DropPolicy(policies ...uint32) error
	RuleUses() (map[kernel.TableRule]kernel.RuleUse, error)
	TakeHits(of func(policy uint32) bool) (map[kernel.TableRule]uint64, error)
	Guard() (hooks, absent []string, err error)
	// What former keepers left, and its removal once the cgroup is gone.
	Pinned() ([]uint32, error)
	Tables() ([]uint32, error)
	TableOf(id uint32, cgroup uint64) (policy uint32, err error)
	TableSizes() (map[uint32]kernel.TableSize, error)
	Forget(id uint32) error
	// What the tables hold.
	Holds(e kernel.Entry) (bool, error)
	NewWalker() *kernel.Walker
	// What was running before it was fenced.
	AttachRunning(cgroup string, st kernel.State, l kernel.Listening, check func() error) (*kernel.Sandbox, error)
	TakeOverRunning(cgroup string, id uint32) (*kernel.Sandbox, error)
	Abandon(id uint32) error
	Shut(id uint32, cgroup uint64) error
}

// Gateway is told which sandboxes there are.
type Gateway interface {
	Call(ctx context.Context, t wire.Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error)
}

// Log is where the life of sandboxes is recorded.
type Log interface {
	Append(ctx context.Context, evs ...*event.Event) (uint64, error)
}

// Options of a manager.
type Options struct {
	Dir        string // one directory per sandbox below it
	CgroupBase string // one cgroup per sandbox below it
	Fence      Fence
	Gateway    Gateway
	Log        Log
	UIDs       UIDs
	Init       *os.File // sealed init binary
	UnixHooks  bool     // the kernel has the unix socket hooks
	Operators  uint32   // group that no process of a sandbox may have, besides 0
	Snapshot   func() *policy.Snapshot
	Bundle     []byte // the host's CA bundle, PEM
	Version    string
	Logger     *slog.Logger
	// Attestation says how often walls are looked at, and what then.
	Attestation Attestation
	// Drain waits, within bounds, until what the kernel recorded of an ended
	// sandbox is in the event log.
	Drain func(*Sandbox)
	// Closed is called when a sandbox switched its policy by itself: EndDenied
	// may have something to do. It must not block. Nil: not called.
	Closed func()
	// Foreign opens listeners for processes that were running before. Nil:
	// nothing can be adopted.
	Foreign ForeignNetworks
	// Often records what adopted processes can cause at will: each within its
	// share of the log. Nil: all of it is recorded.
	Often func(*event.Event)
	// Ended is called after a sandbox and everything it held are gone.
	Ended func(*Sandbox)
	// Spare keeps one sandbox prepared for the next launch, see Manager.Spare.
	Spare bool
}

// Manager owns all sandboxes of one keeper.
type Manager struct {
	o      Options
	idmaps *confine.Idmaps
	images *confine.Images
	java   *trustStore
	host   map[string]uint64 // the machine's namespaces
	seed   maphash.Seed      // of digests

	patience time.Duration // endPatience, or less in tests

	mu       sync.Mutex          // guards what follows
	reserved map[uint32]teamName // number -> name (zero if none) of launches under way and of living sandboxes
	byNumber map[uint32]*Sandbox
	byID     map[string]*Sandbox
	past     past
	probing  map[uint32]*probing         // by number, from the launch to the end
	names    room                        // in the kernel's table of names
	addrs    room                        // in its tree of addresses
	tables   map[uint32]bool             // table numbers in use
	compiled map[uint32]*policy.Snapshot // what those are made of that this keeper wrote
	hits     map[RuleKey]uint64          // what rules decided by tables that were dropped; see hits.go
	walk     *kernel.Walker              // through the kernel's tables; only Attest uses it
	ending   map[string]*Sandbox         // by id: what was put away and is not gone yet
	stuck    []*Sandbox                  // leftovers whose processes do not end: their uids stay locked
	kept     []place                     // adopted processes that could not be taken over: their fence stays
	idle     []uint32                    // uids given back, to be used again first: idmaps are kept for them
	closed   bool
	wg       sync.WaitGroup // one per living sandbox, one for the spare, and one per sandbox that is put away
	severing sync.WaitGroup // one per sandbox that is put away and has something in the kernel
	spare    *launch        // ready for a request; nil if there is none

	spareDue atomic.Bool // one is made soon

	sparing sync.Mutex // one spare at a time; taken before mu

	looks    chan struct{} // looks at adopted processes that are under way
	hands    chan struct{} // their threads, and those that hang
	unlisted atomic.Bool   // the kernel does not come back with a list of unix sockets
	adopting sync.Mutex    // one adoption of running processes at a time: two of one cgroup would share its state

	filterMu sync.Mutex // guards filters; compiling takes a while
	filters  map[seccomp.Options][]byte
}

// NewManager makes an empty manager. See TakeOver for what a former keeper left.
func NewManager(o Options) (*Manager, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("sandboxes: %w", err)
	}
	host, err := namespacesOf("self")
	if err != nil {
		return nil, fmt.Errorf("sandboxes: %w", err)
	}
	return &Manager{o: o, names: newNameRoom(), addrs: newAddrRoom(), host: host, patience: endPatience, idmaps: &confine.Idmaps{}, images: &confine.Images{}, reserved: map[uint32]teamName{}, byNumber: map[uint32]*Sandbox{}, byID: map[string]*Sandbox{}, ending: map[string]*Sandbox{}, probing: map[uint32]*probing{}, tables: map[uint32]bool{}, looks: make(chan struct{}, looksAtOnce), hands: make(chan struct{}, maxHands),
		compiled: map[uint32]*policy.Snapshot{}, hits: map[RuleKey]uint64{}, seed: maphash.MakeSeed(), filters: map[seccomp.Options][]byte{}, java: newTrustStore(o.Bundle, time.Now())}, nil
}

// Sandbox returns a living sandbox by number.
func (m *Manager) Sandbox(number uint32) (*Sandbox, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.byNumber[number]
	return s, ok
}

// ByID returns a living sandbox.
func (m *Manager) ByID(id string) (*Sandbox, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.byID[id]
	return s, ok
}

// List returns the living sandboxes, oldest first.
func (m *Manager) List() []*Sandbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*Sandbox, 0, len(m.byID))
	for _, s := range m.byID {
		out = append(out, s)
	}
	slices.SortFunc(out, byAge)
	return out
}

func byAge(a, b *Sandbox) int {
	return cmp.Or(a.Record.Created.Compare(b.Record.Created), strings.Compare(a.Record.ID, b.Record.ID))
}

// Contains says whether a cgroup path of the v2 hierarchy (relative to its
// root, as in /proc/PID/cgroup) lies in a sandbox.
func (m *Manager) Contains(cgroupRoot, path string) bool {
	full := filepath.Join(cgroupRoot, path)
	rel, err := filepath.Rel(m.o.CgroupBase, full)
	if err == nil && strings.HasPrefix(rel, cgroupPrefix) {
		return true
	}
	return slices.ContainsFunc(m.foreign(), func(r place) bool { return within(full, r.Cgroup) })
}

const cgroupPrefix = "sb-"

// reserve gives a new sandbox its number and id. Others see it from publish
// on.
func (m *Manager) reserve(s *Sandbox) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the daemon is stopping")
	}
	adopted := m.adoptedLocked()
	if err := noRoom(len(m.reserved)-adopted, adopted, s.Record.Foreign != nil); err != nil {
		return err
	}
	for range 100 {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(b[:])
		if n == 0 || n >= NodeOwn { // the upper half belongs to the node itself
			continue
		}
		if _, taken := m.reserved[n]; taken {
			continue
		}
		s.Record.Number, s.Record.ID = n, IDOf(n)
		m.reserved[n] = teamName{}
		m.wg.Add(1)
		return nil
	}
	return errors.New("no free sandbox number")
}

// teamName is what a sandbox is called by its team: others may use the same
// name, and are not told that it is in use. The zero value is no name.
type teamName struct{ org, team, name string }

func nameOf(r *Record) teamName {
	if r.Name == "" {
		return teamName{}
	}
	p, err := scope.ParsePrincipal(r.Scope)
	if err != nil {
		return teamName{name: r.Name} // nobody's: principals have an organisation
	}
	return teamName{p.Org, p.Team, r.Name}
}

// name gives a reserved sandbox a name that no other of its team has. "" is none.
func (m *Manager) name(number uint32, p scope.Principal, name string) error {
	if name == "" {
		return nil
	}
	mine := teamName{p.Org, p.Team, name}
	m.mu.Lock()
	defer m.mu.Unlock()
	for n, other := range m.reserved { // those whose launch is under way too
		if other == mine {
			return fmt.Errorf("a running sandbox of org:%s/team:%s is named %q already (%s): choose another --name, or stop it", p.Org, p.Team, name, IDOf(n))
		}
	}
	m.reserved[number] = mine
	return nil
}

// IDOf is the id of the sandbox with a number.
func IDOf(number uint32) string { return fmt.Sprintf("%08x", number) }

// publish makes a sandbox visible whose immutable fields are all set.
func (m *Manager) publish(s *Sandbox) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errors.New("the daemon is stopping")
	}
	m.byNumber[s.Record.Number], m.byID[s.Record.ID] = s, s
	return nil
}

func (m *Manager) unregister(s *Sandbox) {
	m.mu.Lock()
	delete(m.reserved, s.Record.Number)
	delete(m.byNumber, s.Record.Number)
	delete(m.byID, s.Record.ID)
	delete(m.probing, s.Record.Number)
	m.past.add(s.Record.ID, s.Principal)
	m.mu.Unlock()
	m.dropRoom(s.Record.Number)
	m.wg.Done()
}

// Principal returns whom a sandbox acts for, living or ended not long ago.
func (m *Manager) Principal(id string) (scope.Principal, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.byID[id]; ok {
		return s.Principal, true
	}
	p, ok := m.past.of[id]
	return p, ok
}

// past remembers the principals of the last sandboxes that ended: records
// about them still come in.
type past struct {
	of    map[string]scope.Principal
	order []string // oldest first
}

const maxPast = 4096

func (p *past) add(id string, who scope.Principal) {
	if who.Org == "" {
		return
	}
	if p.of == nil {
		p.of = map[string]scope.Principal{}
	}
	if _, again := p.of[id]; !again {
		p.order = append(p.order, id)
	}
	p.of[id] = who
	if len(p.order) > maxPast {
		delete(p.of, p.order[0])
		p.order = slices.Clone(p.order[1:])
	}
}

// Announce tells a new gateway about every running sandbox, and takes from it
// what it still serves although it is gone.
func (m *Manager) Announce(ctx context.Context, p Gateway) error {
	for _, s := range m.List() {
		if s.isForgotten() {
			continue
		}
		if err := s.announce(ctx, p); err != nil && !s.isForgotten() {
			return fmt.Errorf("sandbox %s: %w", s.Record.ID, err)
		}
	}
	b, _, err := p.Call(ctx, wire.TypeSandboxes, nil)
	if err != nil {
		return err
	}
	served, err := wire.DecodeIDs(b)
	if err != nil {
		return err
	}
	for _, id := range served {
		if s, ok := m.Sandbox(id); ok && !s.isForgotten() {
			continue
		}
		if _, _, err := p.Call(ctx, wire.TypeSandboxRemove, wire.ID(id).Encode()); err != nil {
			return err
		}
	}
	return nil
}

const namesPerMessage = 200

func (s *Sandbox) announce(ctx context.Context, p Gateway) error {
	msg := wire.Names{Sandbox: s.Record.Number}
	flush := func() error {
		if len(msg.Entries) == 0 {
			return nil
		}
		b, err := msg.Encode()
		if err == nil {
			_, _, err = p.Call(ctx, wire.TypeNames, b)
		}
		msg.Entries = nil
		return err
	}
	for a, n := range s.names.All() {
		msg.Entries = append(msg.Entries, wire.NameEntry{Addr: a, Name: n})
		if len(msg.Entries) == namesPerMessage {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	b, err := s.announcement().Encode()
	if err != nil {
		return err
	}
	_, _, err = p.Call(ctx, wire.TypeSandboxAdd, b, s.listeners.Files()...)
	return err
}

// StopAll stops every sandbox and waits until they are gone. On error some are
// not: their fences must stay.
func (m *Manager) StopAll(grace time.Duration) error {
	m.Close()
	for _, s := range m.List() {
		go s.Stop(grace)
	}
	ended := make(chan struct{})
	go func() { m.wg.Wait(); close(ended) }()
	select {
	case <-ended:
		return m.leftStuck()
	case <-time.After(grace + stopPatience):
		var left []string
		for _, s := range append(m.List(), m.Ending()...) {
			left = append(left, s.Record.ID)
		}
		return fmt.Errorf("sandboxes %s: %w", strings.Join(left, ", "), ErrProcesses)
	}
}

// leftStuck names leftovers whose processes do not end.
func (m *Manager) leftStuck() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, s := range m.stuck {
		errs = append(errs, fmt.Errorf("sandbox %s: %w", s.Record.ID, ErrProcesses))
	}
	return errors.Join(errs...)
}

// stopPatience is how long sandboxes may take to end after they were killed;
// handing back a large workspace is the longest part.
const stopPatience = 2 * time.Minute

// Stop releases adopted processes. For any other sandbox it asks the agent to end, and after the grace kills everything in the
// cgroup. It returns when no process is left, or was reported as not to be
// ended; what else the sandbox held goes afterwards, see Done.
func (s *Sandbox) Stop(grace time.Duration) {
	if s.Record.Foreign != nil { // Ringfence did not start it and does not end it
		if err := s.Release(context.Background()); err != nil {
			s.m.o.Logger.Error("release", "sandbox", s.Record.ID, "error", err)
		}
		return
	}
	s.mu.Lock()
	if s.state == Running {
		s.state = Stopping
	}
	c := s.control
	s.mu.Unlock()
	if grace > 0 && c != nil {
		// A failed send means that init is gone already. One that does not
		// read holds up nothing.
		go c.send(signalFrame(syscall.SIGTERM), nil) //nolint:errcheck // see above
		select {
		case <-s.done:
			return
		case <-time.After(grace):
		}
	}
	if err := endProcesses(s.Record.Cgroup, s.m.patience); err != nil {
		s.stuck(err)
	}
}
