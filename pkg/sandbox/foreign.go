// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Foreign is what makes a sandbox one of processes that ran before it was
// fenced. Their network is fenced; their files and system calls cannot be any
// more, and Ringfence did not start them; it ends those that leave their cgroup,
// and no others.
type Foreign struct {
	Direct      bool             `json:"direct"`      // what an address rule allows does not go through the gateway
	Inbound     bool             `json:"inbound"`     // connections that others begin are answered
	KeepSockets bool             `json:"keepSockets"` // sockets that no program meets are tolerated and shown
	Netns       uint64           `json:"netns"`       // inode of the network namespace
	HostNet     bool             `json:"hostNet"`     // it is the machine's own
	Listening   kernel.Listening `json:"listening"`
}

// NoDatagrams says why the gateway relays no datagrams of adopted processes
// other than DNS; "" if it does.
func (f *Foreign) NoDatagrams() string {
	if f.Listening.UDP4[0] != 0 {
		return ""
	}
	return "UDP other than DNS is refused, unless it goes its own way: this kernel does not tell the gateway what a datagram is for (SO_RCVMARK, Linux 5.19)"
}

// ForeignRequest asks to fence processes that run already.
type ForeignRequest struct {
	Principal   scope.Principal
	Name        string
	Owner       uint32
	Cgroup      string // absolute path of a cgroup v2 directory
	Caller      string // the cgroup of who asks: it must stay outside, or nobody could release it
	Direct      bool   // see Foreign
	Inbound     bool   // see Foreign
	Loopback    bool   // the loopback of their network namespace is open
	Unix        bool   // unix sockets are open
	KeepSockets bool   // see Foreign
	// Prepare is that of Request.
	Prepare func(id string, p scope.Principal) ([]string, error)
}

// RefusedSockets says that sockets of running processes cannot be fenced.
type RefusedSockets struct {
	Sockets []LooseSocket
	More    int    // further ones that are not listed
	Cut     string // why not every descriptor was looked at, "" if each was
}

func (e *RefusedSockets) Error() string {
	if e.Cut == "" {
		return fmt.Sprintf("%d open descriptors would stay outside of the fence", len(e.Sockets)+e.More)
	}
	return fmt.Sprintf("%d open descriptors would stay outside of the fence, and not all were looked at: %s", len(e.Sockets)+e.More, e.Cut)
}

// refused says why an adoption is refused for what a look found; nil if it is
// not.
func (at *Sighting) refused() error {
	if len(at.Loose) == 0 && at.Cut == "" {
		return nil
	}
	return &RefusedSockets{at.Loose, at.More, at.Cut}
}

// fencing is one adoption of running processes under way.
type fencing struct {
	founding
	r     *ForeignRequest
	pids  []int
	ended int // connections that were open before
}

// Adopt puts the network of running processes behind the fence and
// returns how many of their open connections were ended. On error nothing has
// changed for them, except that what they connected in the last moment of the
// attempt may be cut.
func (m *Manager) Adopt(ctx context.Context, r *ForeignRequest) (*Sandbox, int, error) {
	m.adopting.Lock()
	defer m.adopting.Unlock()
	f := m.newFencing(r)
	for _, st := range f.steps() {
		if err := st.run(ctx); err != nil {
			f.takeBack()
			return nil, 0, f.failed(launchError(st.name, err))
		}
	}
	go f.s.liveForeign()
	return f.s, f.ended, nil
}

func (m *Manager) newFencing(r *ForeignRequest) *fencing {
	return &fencing{r: r, founding: founding{m: m, s: &Sandbox{m: m, state: Starting, ended: make(chan struct{}), done: make(chan struct{}),
		released: make(chan struct{}), open: map[netip.Addr][]kernel.NameEntry{}}}}
}

// fencingStep is one part of an adoption. It registers what undoes it.
type fencingStep struct {
	name string
	run  func(context.Context) error
}

// steps of an adoption, in order.
func (f *fencing) steps() []fencingStep {
	return []fencingStep{
		{"processes", f.look}, {"number", f.reserve}, {"register", f.register}, {"state directory", f.directory}, {"certificate", f.certificate},
		{"policy", f.policy}, {"listeners", f.listen}, {"record", f.save}, {"gateway", f.gateway}, {"network programs", f.fence},
		{"older connections", f.endOlder}, {"newest policy", f.catchUp}, {"attestation", f.attest}, {"event log", f.record}, {"start", f.start},
	}
}

// failed records the end of an adoption whose start is in the log, once it is
// taken back. It does not depend on the context of the adoption: that may be
// why it failed.
func (f *fencing) failed(err error) error {
	if f.logged {
		f.s.recordForeignEnd(endFailed, err)
	}
	return err
}

// look refuses what cannot be fenced and finds the network namespace.
func (f *fencing) look(context.Context) error {
	m, r := f.m, f.r
	if err := m.mayFence(r.Cgroup); err != nil {
		return err
	}
	if within(r.Caller, r.Cgroup) {
		return errors.New("you are in this cgroup yourself: your own connections would be cut, and nobody inside may release it")
	}
	var err error
	if f.pids, err = treePIDs(r.Cgroup); err != nil {
		return err
	}
	if len(f.pids) == 0 {
		return errors.New("the cgroup has no process: there is nothing to adopt")
	}
	netns, ns, err := oneNetwork(f.pids)
	if err != nil {
		return err
	}
	f.s.netns = ns
	f.undoes(func() { ns.Close() })
	host := netns == m.host["net"]
	if host && r.Loopback {
		return errors.New("the processes are in the machine's own network namespace: its loopback cannot be opened as a whole; give the service a name and a rule with resolvesTo: [127.0.0.1/32]")
	}
	if !r.Unix && !m.o.UnixHooks {
		return errors.New("this kernel has no unix socket hooks (Linux 6.7), so unix sockets cannot be closed: open them with --unix-sockets")
	}
	f.s.Record = Record{Name: r.Name, Owner: r.Owner, Unix: r.Unix, Loopback: r.Loopback, Cgroup: r.Cgroup, Created: time.Now().UTC(),
		Foreign: &Foreign{Direct: r.Direct, Inbound: r.Inbound, KeepSockets: r.KeepSockets, Netns: netns, HostNet: host}}
	f.s.Record.CgroupID, err = cgroupID(r.Cgroup)
	return err
}

// mayFence refuses cgroups whose fence would hit Ringfence itself, the whole
// machine, or what is fenced already.
func (m *Manager) mayFence(path string) error {
	root, err := kernel.CgroupRoot()
	if err != nil {
		return err
	}
	own, err := cgroupOfProcess(root, os.Getpid())
	if err != nil {
		return err
	}
	switch {
	case path == root:
		return errors.New("this is the root of the cgroup hierarchy: its fence would be the whole machine's. Processes that have no cgroup v2 of their own cannot be adopted; move them into one first")
	case !within(path, root):
		return fmt.Errorf("%s is not below the cgroup v2 hierarchy at %s", path, root)
	case within(own, path):
		return errors.New("ringfenced itself runs in this cgroup")
	case within(m.o.CgroupBase, path), within(path, m.o.CgroupBase):
		return errors.New("the daemon's own cgroups lie there: what it started is fenced already")
	case ofAnother(root, path):
		return errors.New("another ringfenced of this machine has it in a sandbox")
	}
	for _, r := range m.foreign() {
		if within(path, r.Cgroup) || within(r.Cgroup, path) {
			return fmt.Errorf("it was adopted already, or a cgroup above or below it was: sandbox %s, %s (what a restarted daemon could not take over it tries again at its next start)", r.ID, r.Cgroup)
		}
	}
	return nil
}

// place is where adopted processes are.
type place struct{ ID, Cgroup string }

// foreign lists what was adopted, also what could not be taken over.
func (m *Manager) foreign() []place {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Clone(m.kept)
	for _, s := range m.byID {
		if s.Record.Foreign != nil {
			out = append(out, place{s.Record.ID, s.Record.Cgroup})
		}
	}
	return out
}

// Keeps says how many adopted groups of processes could not be taken over and
// stay behind their fence.
func (m *Manager) Keeps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.kept)
}

// ofAnother says that a cgroup is a sandbox's of another daemon, or below one.
func ofAnother(root, path string) bool {
	for ; within(path, root) && path != root; path = filepath.Dir(path) {
		base := filepath.Base(path)
		id, is := strings.CutPrefix(base, cgroupPrefix)
		if (is && numberOf(id) != 0 || base == "gateway") && exists(filepath.Join(filepath.Dir(path), "gateway")) {
			return true
		}
	}
	return false
}

// within says that path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func (f *fencing) register(context.Context) error {
	rec := &f.s.Record
	if err := f.m.name(rec.Number, f.r.Principal, rec.Name); err != nil {
		return err
	}
	return f.actsFor(f.r.Principal)
}

func (f *fencing) policy(context.Context) error {
	if err := f.view(f.r.Prepare); err != nil {
		return err
	}
	return f.tables()
}

func (f *fencing) listen(ctx context.Context) (err error) {
	s := f.s
	if s.listeners, s.Record.Foreign.Listening, err = f.m.openForeign(ctx, s.netns); err != nil {
		return err
	}
	f.undoes(s.listeners.Close)
	s.Record.Listeners, err = s.listeners.cookies()
	return err
}

// save comes before anything is attached: a keeper that dies from here on
// leaves a successor that takes an unfinished adoption back.
func (f *fencing) save(context.Context) error { return f.s.Record.save(f.s.dir) }

// fence attaches, unless a descriptor stays outside and that is not tolerated.
func (f *fencing) fence(context.Context) (err error) {
	s := f.s
	fence, err := f.m.o.Fence.AttachRunning(s.Record.Cgroup, s.kernelState(), s.Record.Foreign.Listening, func() error {
		at, err := s.lookAtForeign(newBounds())
		if err == nil && !s.Record.Foreign.KeepSockets {
			err = at.refused()
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.fence = fence
	s.mu.Unlock()
	f.undoes(func() {
		if err := fence.Release(); err != nil {
			f.m.o.Logger.Error("undo of an adoption", "error", err)
		}
	})
	return nil
}

// endOlder ends what was open before, and looks once more at what cannot be
// ended: a socket may have come in while the programs were attached.
func (f *fencing) endOlder(context.Context) (err error) {
	s := f.s
	f.ended, err = s.fence.EndOlder(int(s.netns.Fd()), s.Record.Foreign.Listening)
	if errors.Is(err, kernel.ErrNoDestroy) {
		err = nil // nothing of it gets out any more; it stalls
	}
	if err != nil {
		return err
	}
	at, err := s.lookAtForeign(newBounds())
	if err != nil {
		return err
	}
	if err := at.refused(); err != nil && !s.Record.Foreign.KeepSockets {
		return err
	}
	s.leavers() // from here on they are known
	s.mu.Lock()
	s.sighting = at
	s.mu.Unlock()
	return nil
}

func (f *fencing) attest(context.Context) error {
	found := f.s.attestAdopted(suspicions{})
	if broken := found.broken(); len(broken) > 0 {
		return errors.New(broken.String())
	}
	f.s.note(found, suspicions{})
	return nil
}

// record makes the adoption a fact in the log. Whatever fails after that is
// recorded as its end.
func (f *fencing) record(ctx context.Context) error {
	s := f.s
	e := s.event(event.KindSandboxStart)
	e.Verdict, e.Activity = event.Observed, "adopt"
	e.PID = uint32(f.pids[0])
	e.Actor = scope.Operator(s.Record.Owner, "")
	e.Reason = fmt.Sprintf("%d running processes are behind the network fence; their files and system calls are not fenced", len(f.pids))
	e.Detail = strings.Join(append([]string{fmt.Sprintf("cgroup %s, connections ended: %d", s.Record.Cgroup, f.ended)}, s.Sighting().Powers...), "; ")
	f.logged = true // an error may come after the event
	if _, err := f.m.o.Log.Append(ctx, e); err != nil {
		return fmt.Errorf("the event log does not take the start: %w", err)
	}
	return nil
}

func (f *fencing) start(context.Context) error {
	s := f.s
	s.tellSighting(Sighting{}, s.Sighting())
	s.tellBeside(nil, s.Beside())
	return s.started()
}
