// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// Hooks of redirection. Verdicts of an adopted cgroup are counted and recorded
// under the fence's own hooks; these only tell the programs apart.
const (
	hookAnswer Hook = 0x40 + iota
	hookDepart
	hookArrive
	hookAsk
	hookRedirect4
	hookRedirect6
	hookRedirectSend4
	hookRedirectSend6
	hookRecvmsg4
	hookRecvmsg6
	hookPeername4
	hookPeername6
	hookRedirectEgress
	hookReply
)

// marks are attached to an adopted cgroup before anything else: they tell which
// sockets meet its programs, and change nothing.
var marks = [...]hookInfo{
	{hookAnswer, "answer", bpf.ListenerProgRfAnswer, ebpf.AttachCGroupGetsockopt, "5.3", false},
}

// redirectHooks fence an adopted cgroup. What shows a socket's owner the
// destination that it asked for comes before what changes it.
var redirectHooks = [...]hookInfo{
	{hookRecvmsg4, "recvmsg4", bpf.RedirectProgRfRecvmsg4, ebpf.AttachCGroupUDP4Recvmsg, "5.2", false},
	{hookRecvmsg6, "recvmsg6", bpf.RedirectProgRfRecvmsg6, ebpf.AttachCGroupUDP6Recvmsg, "5.2", false},
	{hookPeername4, "getpeername4", bpf.RedirectProgRfGetpeername4, ebpf.AttachCgroupInet4GetPeername, "5.8", false},
	{hookPeername6, "getpeername6", bpf.RedirectProgRfGetpeername6, ebpf.AttachCgroupInet6GetPeername, "5.8", false},
	{hookDepart, "depart", bpf.RedirectProgRfDepart, ebpf.AttachCGroupSockOps, "5.14", false},
	{HookSockCreate, "sock_create", bpf.FenceProgRfSockCreate, ebpf.AttachCGroupInetSockCreate, "4.10", false},
	{hookRedirect4, "connect4", bpf.RedirectProgRfRedirectConnect4, ebpf.AttachCGroupInet4Connect, "5.8", false},
	{hookRedirect6, "connect6", bpf.RedirectProgRfRedirectConnect6, ebpf.AttachCGroupInet6Connect, "5.8", false},
	{hookRedirectSend4, "sendmsg4", bpf.RedirectProgRfRedirectSendmsg4, ebpf.AttachCGroupUDP4Sendmsg, "5.8", false},
	{hookRedirectSend6, "sendmsg6", bpf.RedirectProgRfRedirectSendmsg6, ebpf.AttachCGroupUDP6Sendmsg, "5.8", false},
	{hookRedirectEgress, "egress", bpf.RedirectProgRfRedirectEgress, ebpf.AttachCGroupInetEgress, "5.2", false},
	{HookConnectUnix, "connect_unix", bpf.FenceProgRfConnectUnix, ebpf.AttachCgroupUnixConnect, "6.7", true},
	{HookSendmsgUnix, "sendmsg_unix", bpf.FenceProgRfSendmsgUnix, ebpf.AttachCgroupUnixSendmsg, "6.7", true},
}

// listenerHooks are on the cgroup in which listeners are made, besides the
// fence's own.
var listenerHooks = [...]hookInfo{
	{hookArrive, "arrive", bpf.ListenerProgRfArrive, ebpf.AttachCGroupSockOps, "5.14", false},
	{hookAsk, "ask", bpf.ListenerProgRfAsk, ebpf.AttachCGroupInetIngress, "5.2", false},
	{hookReply, "reply", bpf.ListenerProgRfReply, ebpf.AttachCGroupInetEgress, "5.2", false},
	{hookAnswer, "answer", bpf.ListenerProgRfAnswer, ebpf.AttachCGroupGetsockopt, "5.3", false},
}

// programs are loaded programs by hook, without hooks that the kernel lacks.
type programs struct {
	by   map[Hook]*ebpf.Program
	ids  map[Hook]ebpf.ProgramID
	tags map[Hook]string // digests of their instructions, by the kernel
}

// redirection is loaded when it is first asked for: most nodes adopt nothing.
type redirection struct {
	mu                       sync.Mutex // guards what follows; progs does not change once it is there
	progs                    *programs  // with the fence's own
	asked, redirects, flying *ebpf.Map
	serving, relays, relayed *ebpf.Map
}

// redirection loads the programs of redirection or takes over their pins.
func (f *Fence) redirection() (programs, error) {
	r := &f.redirect
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.progs != nil {
		return *r.progs, nil
	}
	l, err := newLoader(f.o, filepath.Join(f.dir, "maps"))
	if err != nil {
		return programs{}, err
	}
	if err := f.loadRedirectionLocked(l); err != nil {
		return programs{}, errors.Join(fmt.Errorf("network programs for what was running before: %w", err), r.closeLocked())
	}
	return *r.progs, nil
}

// redirection fits the objects of redirection to the kernel, as newLoader does
// with the others.
func (l *loader) redirection() (redirect, listener *ebpf.CollectionSpec, err error) {
	if redirect, err = bpf.LoadRedirect(); err != nil {
		return nil, nil, err
	}
	if listener, err = bpf.LoadListener(); err != nil {
		return nil, nil, err
	}
	var retval byte
	if err := l.fence.Variables[bpf.FenceVarRfHaveRetval].Get(&retval); err != nil {
		return nil, nil, err
	}
	return redirect, listener, redirect.Variables[bpf.RedirectVarRfHaveRetval].Set(retval)
}

// openMaps creates or takes over the maps that only redirection has.
func (r *redirection) openMaps(l *loader, from *ebpf.CollectionSpec) error {
	for name, dst := range map[string]**ebpf.Map{
		bpf.RedirectMapAsked: &r.asked, bpf.RedirectMapRedirects: &r.redirects, bpf.RedirectMapFlying: &r.flying,
		bpf.RedirectMapServing: &r.serving, bpf.RedirectMapRelays: &r.relays, bpf.RedirectMapRelayed: &r.relayed,
	} {
		m, err := l.openMap(from, name)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		*dst, l.shared[name] = m, m
	}
	return nil
}

func (f *Fence) loadRedirectionLocked(l *loader) error {
	r := &f.redirect
	redirect, listener, err := l.redirection()
	if err != nil {
		return err
	}
	maps.Copy(l.shared, f.sharedMaps())
	if err := r.openMaps(l, redirect); err != nil {
		return err
	}
	p := programs{maps.Clone(f.progs), maps.Clone(f.ids), maps.Clone(f.tags)}
	r.progs = &p
	dir := filepath.Join(f.dir, "progs", l.digest)
	for _, set := range [][]hookInfo{redirectHooks[:], listenerHooks[:]} {
		for _, h := range set {
			if h.hook < hookAnswer {
				continue // the fence's own
			}
			from := redirect
			if from.Programs[h.prog] == nil {
				from = listener
			}
			prog, err := l.program(dir, "redirect-"+h.name, from, h.prog)
			if err != nil {
				return fmt.Errorf("load %s (Linux %s): %w", h.prog, h.kernel, err)
			}
			p.by[h.hook] = prog
			if p.ids[h.hook], p.tags[h.hook], err = programIdentity(prog); err != nil {
				return fmt.Errorf("load %s: %w", h.prog, err)
			}
		}
	}
	return nil
}

// sharedMaps are the fence's maps by name.
func (f *Fence) sharedMaps() map[string]*ebpf.Map {
	m := &f.maps
	return map[string]*ebpf.Map{
		bpf.FenceMapState: m.State, bpf.FenceMapNames: m.Names, bpf.FenceMapCidrs: m.Cidrs, bpf.FenceMapMembers: m.Members,
		bpf.FenceMapRates: m.Rates, bpf.FenceMapDenials: m.Denials, bpf.FenceMapFlows: m.Flows, bpf.FenceMapOutcomes: m.Outcomes,
		bpf.FenceMapVerdicts: m.Verdicts, bpf.FenceMapRefusals: m.Refusals, bpf.FenceMapCalls: m.Calls, bpf.FenceMapWatch: m.Watch,
		bpf.FenceMapReported: m.Reported, bpf.FenceMapProcesses: m.Processes, bpf.FenceMapPrograms: m.Programs,
		bpf.FenceMapScratch: m.Scratch, bpf.FenceMapReads: m.Reads, bpf.FenceMapGuards: m.Guards, bpf.FenceMapEntries: m.Entries, bpf.FenceMapHits: m.Hits,
	}
}

func (r *redirection) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closeLocked()
}

func (r *redirection) closeLocked() error {
	var errs []error
	if r.progs != nil {
		for h, p := range r.progs.by {
			if h >= hookAnswer {
				errs = append(errs, p.Close())
			}
		}
	}
	for _, m := range []*ebpf.Map{r.asked, r.redirects, r.flying, r.serving, r.relays, r.relayed} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	r.progs, r.asked, r.redirects, r.flying, r.serving, r.relays, r.relayed = nil, nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}

// Relays is how many destinations one UDP socket of adopted processes can have
// at a time.
const Relays = 16 // RF_RELAYS, which the array in bpf.RedirectRfRedirect compares

// Listening says where the gateway listens in one network namespace that is not
// ours: ports on its loopback, 0 where there is none.
type Listening struct {
	Netns                                          uint64 // SO_NETNS_COOKIE of the listeners
	TCP4, TCP6, DNSTCP4, DNSTCP6, DNSUDP4, DNSUDP6 uint16
	// UDP4 and UDP6 are for datagrams other than DNS: one socket can have as
	// many destinations as there are ports here. None, and they are refused as
	// [ReasonNoRelay].
	UDP4, UDP6 [Relays]uint16

	// Sockets are the listeners themselves. A port alone is nobody's: processes
	// are sent to one only while it belongs to a socket of this list.
	Sockets []*os.File `json:"-"`
}

// AttachRunning fences a cgroup whose processes run already, and those below
// it. What a rule allows goes to the gateway's listeners in l. First it only
// marks the sockets that the programs will meet, and calls check, which may
// look with [FencedBy] whether all of them are; its error ends the attempt and
// nothing has changed for the processes. From the return on, sockets of the
// cgroup send only what the hooks have let through. Connections that are open
// still are to be ended with [Sandbox.EndOlder].
func (f *Fence) AttachRunning(cgroupPath string, st State, l Listening, check func() error) (*Sandbox, error) {
	s, err := f.newRunning(cgroupPath, st.Sandbox)
	if err != nil {
		return nil, err
	}
	if err := s.make(func() error { return s.attachRunning(st, l, check) }); err != nil {
		return nil, err
	}
	return s, nil
}

// TakeOverRunning is TakeOverSandbox for what AttachRunning attached.
func (f *Fence) TakeOverRunning(cgroupPath string, id uint32) (*Sandbox, error) {
	s, err := f.newRunning(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	return s.takenOver(s.takeOverPins)
}

func (f *Fence) newRunning(cgroupPath string, id uint32) (*Sandbox, error) {
	progs, err := f.redirection()
	if err != nil {
		return nil, err
	}
	s, err := f.newSandbox(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	s.set, s.progs, s.judge, s.running = append(marks[:len(marks):len(marks)], redirectHooks[:]...), progs, f.judgeAdopted, true
	return s, nil
}

func (s *Sandbox) attachRunning(st State, l Listening, check func() error) error {
	if err := s.linkTo(marks[:]); err != nil {
		return err
	}
	if err := s.SetState(st); err != nil { // what is attached after this judges at once
		return err
	}
	if err := check(); err != nil {
		return err
	}
	if err := s.Redirect(l); err != nil {
		return err
	}
	if err := s.register(st); err != nil {
		return err
	}
	return s.linkTo(redirectHooks[:])
}

// Redirect says where the gateway listens, in one more namespace or anew.
func (s *Sandbox) Redirect(l Listening) error {
	if len(l.Sockets) == 0 {
		return fmt.Errorf("listeners of sandbox %d: no sockets", s.id)
	}
	for _, f := range l.Sockets { // a socket's storage is written by its descriptor (since 5.2)
		if err := s.fence.redirect.serving.Put(uint32(f.Fd()), s.id); err != nil {
			return fmt.Errorf("listeners of sandbox %d: mark a socket: %w", s.id, err)
		}
	}
	key := bpf.RedirectRfRedirectKey{Netns: l.Netns, Sandbox: s.id}
	val := bpf.RedirectRfRedirect{Tcp4: l.TCP4, Tcp6: l.TCP6, DnsTcp4: l.DNSTCP4, DnsTcp6: l.DNSTCP6, DnsUdp4: l.DNSUDP4, DnsUdp6: l.DNSUDP6,
		Udp4: l.UDP4, Udp6: l.UDP6}
	if err := s.fence.redirect.redirects.Put(key, val); err != nil {
		return fmt.Errorf("listeners of sandbox %d: %w", s.id, err)
	}
	return nil
}

// Shut denies everything to processes that this keeper cannot take over, until
// one does and writes their state again: nobody is sent to a listener, and the
// state opens nothing and names no table. Whatever was open sends nothing more.
// It does without the programs. Behind the layout before this one it removes the
// listeners of all, because no keeper serves anybody there any more.
func (f *Fence) Shut(id uint32, cgroup uint64) error {
	return errors.Join(f.unredirect(id), f.shut(id, cgroup), f.former.unredirect(), f.former.shut(id, cgroup))
}

// shut takes away what the state of the present layout opens.
func (f *Fence) shut(id uint32, cgroup uint64) error {
	var st bpf.FenceRfState
	err := f.maps.State.Lookup(cgroup, &st)
	if errors.Is(err, ebpf.ErrKeyNotExist) || err == nil && st.Sandbox != id {
		return nil // nothing of this sandbox is judged on it
	}
	if err == nil {
		err = f.maps.State.Update(cgroup, bpf.FenceRfState{Sandbox: id}, ebpf.UpdateExist)
	}
	if err != nil {
		return fmt.Errorf("state of sandbox %d: %w", id, err)
	}
	return nil
}

// unredirect removes every listener of a sandbox in the present layout: what
// would be sent to the gateway is refused.
func (f *Fence) unredirect(id uint32) error {
	r := &f.redirect
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.redirects
	if m == nil {
		pinned, err := ebpf.LoadPinnedMap(filepath.Join(f.dir, "maps", bpf.RedirectMapRedirects), nil)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // nothing was ever adopted
		}
		if err != nil {
			return fmt.Errorf("listeners of sandbox %d: %w", id, err)
		}
		defer pinned.Close()
		m = pinned
	}
	// Whatever the values are: another build of this layout may have longer ones.
	keys, err := keysByOne(m, func(k *bpf.RedirectRfRedirectKey, _ *[]byte) bool { return k.Sandbox == id })
	if err != nil {
		return fmt.Errorf("listeners of sandbox %d: %w", id, err)
	}
	return deleteAll(m, keys)
}

// Release removes the fence from processes that live on without it, and
// everything kept for the sandbox except its policy entries.
func (s *Sandbox) Release() error {
	if !s.running {
		return fmt.Errorf("release sandbox %d: its processes were started behind the fence", s.id)
	}
	if err := s.release(); err != nil {
		return fmt.Errorf("release sandbox %d: %w", s.id, err)
	}
	return nil
}

// Gone says that the cgroup was removed.
func (s *Sandbox) Gone() bool { return !s.cg.alive() }

// EndOlder ends every connected socket of the cgroup, and of those below it,
// that does not go to one of the given listeners, and returns how many: what
// was open before the fence. With open loopback, connections on it stay. The
// errors are those of [Sandbox.EndDenied].
func (s *Sandbox) EndOlder(netnsFD int, l Listening) (int, error) {
	own, err := s.cgroups()
	if err != nil {
		return 0, err
	}
	ours := map[uint16]bool{l.TCP4: true, l.TCP6: true, l.DNSTCP4: true, l.DNSTCP6: true, l.DNSUDP4: true, l.DNSUDP6: true}
	for i := range Relays {
		ours[l.UDP4[i]], ours[l.UDP6[i]] = true, true
	}
	loopback := s.State().Flags&FlagLoopback != 0
	n, err := destroyFlows(netnsFD, &s.held, func(f Flow) bool {
		if !own[f.Cgroup] {
			return false
		}
		if f.Dst.Addr().Unmap().IsLoopback() && (loopback || ours[f.Dst.Port()]) {
			return false
		}
		s.fence.ended.add(f.Cookie)
		return true
	})
	s.fence.ended.n.Add(uint64(n))
	return n, err
}

// walkTime bounds how long cgroups below one are listed: whoever runs there may
// make as many as the limits above allow (cgroup.max.descendants).
const walkTime = 5 * time.Second

// cgroups are the ids of the cgroup and, for what was running before, of those
// below it: a socket belongs to the one it was made in.
func (s *Sandbox) cgroups() (map[uint64]bool, error) { return s.cgroupsUntil(time.Now().Add(walkTime)) }

func (s *Sandbox) cgroupsUntil(until time.Time) (map[uint64]bool, error) {
	out := map[uint64]bool{s.cg.id: true}
	if !s.running {
		return out, nil
	}
	err := filepath.WalkDir(s.cg.path()+"/.", func(_ string, d fs.DirEntry, err error) error {
		switch {
		case time.Now().After(until):
			return fmt.Errorf("there are so many that listing them takes more than %s", walkTime)
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			out[st.Ino] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cgroups of sandbox %d: %w", s.id, err)
	}
	return out, nil
}

// listenersMay is all that a socket of the listeners' cgroup may send, besides
// what belongs to connections that were accepted: answers by UDP to questions
// from the same namespace, but no questions. Whoever takes the gateway over
// holds these sockets, and the namespace has routes.
func listenersMay() (out []CIDREntry) {
	for _, p := range []string{"127.0.0.0/8", "::1/128"} {
		p := netip.MustParsePrefix(p)
		out = append(out, CIDREntry{Prefix: p, Proto: ProtoUDP, Allow: true}, CIDREntry{Prefix: p, Proto: ProtoUDP, Port: 53})
	}
	return out
}

// AttachListeners fences the empty cgroup in which listeners for namespaces
// that are not ours are made: a socket made there serves only whom the hooks of
// an adopted cgroup sent to it, and connects nowhere. The table policy belongs
// to it.
func (f *Fence) AttachListeners(cgroupPath string, id, policy uint32) (*Sandbox, error) {
	s, err := f.newListeners(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	if err := f.PutCIDRs(policy, listenersMay()); err != nil {
		s.cg.close()
		return nil, err
	}
	st := State{Sandbox: id, Policy: policy, Flags: FlagGateway}
	if err := s.make(func() error { return s.attachWith(st) }); err != nil {
		return nil, err
	}
	return s, nil
}

// TakeOverListeners is TakeOverSandbox for what AttachListeners attached.
func (f *Fence) TakeOverListeners(cgroupPath string, id uint32) (*Sandbox, error) {
	s, err := f.newListeners(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	return s.takenOver(s.takeOverPins)
}

func (f *Fence) newListeners(cgroupPath string, id uint32) (*Sandbox, error) {
	progs, err := f.redirection()
	if err != nil {
		return nil, err
	}
	s, err := f.newSandbox(cgroupPath, id)
	if err != nil {
		return nil, err
	}
	s.set, s.progs = append(hooks[:len(hooks):len(hooks)], listenerHooks[:]...), progs
	return s, nil
}

// FencedBy returns the sandbox whose programs a socket of any family meets: 0
// for one that was made outside of every adopted cgroup.
func FencedBy(fd int) uint32 {
	n, err := unix.GetsockoptInt(fd, int(bpf.RedirectRfSockoptRF_SOL), int(bpf.RedirectRfSockoptRF_SO_FENCE))
	if err != nil {
		return 0
	}
	return uint32(n)
}
