// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/audit"
	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/gatewayd"
	"github.com/ringfence/ringfence/pkg/keeper"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/refusal"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/seccomp"
	"github.com/ringfence/ringfence/pkg/stateformat"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/webhook"
	"github.com/ringfence/ringfence/pkg/wire"
)

// Daemon is one running keeper.
type Daemon struct {
	cfg     Config
	logger  *slog.Logger
	version string
	started time.Time

	runLock    *os.File
	cgroupRoot string
	cgroupBase string

	log       *audit.Log
	fence     *kernel.Fence
	store     store.Store
	library   *documents.Library
	secrets   *Secrets
	approvals *approval.Book
	prices    priceBook
	drafts    approval.Drafts

	self       event.Node
	hooks      *webhook.Queue // nil: nobody is told
	hookSender *webhook.Process
	parsed     profileCache
	sandboxes  *sandbox.Manager
	gateway    *keeper.Gateway
	gwFence    *kernel.Sandbox
	gwCgroup   *os.File
	foreign    *foreignNetworks
	initFile   *os.File
	filter     *os.File
	budgets    *budgets
	policy     *policyFeed
	people     *people
	ender      *ender
	own        ownDocuments
	operators  int // gid of the operator group as the start found it, -1: none

	clients     *clients
	ruleHits    ruleHits
	lateInits   lateInits
	lostDenials lostDenials
	repeats     *repeats
	losses      *losses
	unwritten   *unwritten

	shadowDenials [policy.Allow + 1]atomic.Uint64 // refused in the kernel, and rules in shadow mode had another effect: that one

	readingSince  time.Time     // see drain.go; set before the reader starts
	recordsBefore uint64        // likewise
	recordsTaken  atomic.Uint64 // likewise
	recordsFound  atomic.Uint64 // older ones, which waited in the rings

	finding   sync.Mutex // one search of the whole log at a time
	opening   sync.Mutex // one change of the gateway's table at a time
	storing   sync.Mutex // one change of a living sandbox's own documents at a time
	providing sync.Mutex // one change of a provider and its key at a time; taken before applying
	applying  sync.Mutex // one change by policy apply or delete at a time

	mu         sync.Mutex // guards what follows
	ended      []endedSandbox
	grants     map[string]*time.Timer // documents that expire
	used       map[string]bool        // those for one connection that is under way
	tables     int                    // which of the gateway's two tables is in use
	unenforced string                 // why the newest policy is not in force everywhere, "" when it is
	facts      nodeFacts              // resolvers and own addresses of the machine
	loaded     []string               // problems of the secrets, for status
	fed        uint64                 // policy revision that the present gateway was fed with

	left inheritance

	taken   chan struct{} // closed when what lives of a former daemon was taken over
	settled chan struct{} // closed when nothing else of it is in the kernel any more
}

// ownBinary runs this very program again whatever directory it lies in: the
// unprivileged processes could not reach one below a private directory. The
// child resolves it between fork and exec, when it still is the daemon's.
const ownBinary = "/proc/self/exe"

// New checks what must be there and opens everything, without starting it.
func New(cfg Config, version string, logger *slog.Logger) (*Daemon, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("ringfenced must run as root: it owns cgroups, namespaces and BPF programs")
	}
	d := &Daemon{cfg: cfg, version: version, logger: logger, started: time.Now(), operators: groupID(cfg.Group),
		grants: map[string]*time.Timer{}, used: map[string]bool{}, policy: newPolicyFeed(), ender: newEnder(), taken: make(chan struct{}), settled: make(chan struct{})}
	d.people = newPeople(func() *policy.Snapshot { return d.library.Snapshot() })
	for _, step := range []func() error{d.openRun, d.openLog, d.openFence, d.openDocuments, d.openSandboxes, d.openApprovals, d.openBudgets, d.openWebhook, d.inherit, d.openGateway} {
		if err := step(); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

func (d *Daemon) openRun() (err error) {
	if d.runLock, err = lockRun(d.cfg.RunDir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := stateformat.Open(d.cfg.StateDir, d.version, stateFormat, stateSteps(d.version, d.logger), d.logger); err != nil {
		return err
	}
	if d.cgroupRoot, d.cgroupBase, err = cgroupBase(d.cfg.RunDir); err != nil {
		return err
	}
	if d.initFile, err = confine.InitBinary(d.cfg.InitPath); err != nil {
		return fmt.Errorf("%w (build it with `make build`, or set initPath)", err)
	}
	d.facts, err = readNode(d.cfg.Gateway.Resolvers, resolvConf)
	return err
}

// logQueue takes the whole shares of several sandboxes at once.
const logQueue = 32768

func (d *Daemon) openLog() (err error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	id, err := nodeID(d.cfg.StateDir)
	if err != nil {
		return err
	}
	d.self = event.Node{UID: id, Hostname: host, Version: d.version, Kernel: kernelRelease()}
	d.log, err = audit.Open(audit.Options{
		Dir: filepath.Join(d.cfg.StateDir, "events"), SegmentBytes: d.cfg.Audit.SegmentBytes, MaxBytes: d.cfg.Audit.MaxBytes, Queue: logQueue,
		Node: d.self, Logger: d.logger,
	})
	if err != nil {
		return fmt.Errorf("event log: %w", err)
	}
	d.losses = openLosses(filepath.Join(d.cfg.RunDir, lossFile), d.logger, d.appendErr)
	d.unwritten = openUnwritten(filepath.Join(d.cfg.RunDir, takenFile), d.logger, d.appendErr)
	d.repeats = newRepeats(event.NewShare(), d.log.Post)
	return nil
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// nodeID is a random name given to the node once.
func nodeID(stateDir string) (string, error) {
	path := filepath.Join(stateDir, "node-id")
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("node id: %w", err)
	}
	u, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	if err := os.WriteFile(path, u, 0o644); err != nil {
		return "", fmt.Errorf("node id: %w", err)
	}
	return strings.TrimSpace(string(u)), nil
}

func (d *Daemon) openFence() (err error) {
	o := kernel.Options{PinDir: filepath.Join(d.cfg.RunDir, "bpf"), Logger: d.logger}
	if d.cfg.Audit.Syscalls {
		o.Refusals = refusal.Table(d.cfg.Audit.Watch)
	}
	d.fence, err = kernel.Open(o)
	if err != nil {
		return fmt.Errorf("network programs: %w (`ringfence doctor` says what this kernel lacks)", err)
	}
	return nil
}

func (d *Daemon) openDocuments() (err error) {
	if d.secrets, err = OpenSecrets(filepath.Join(d.cfg.StateDir, "secrets")); err != nil {
		return err
	}
	if d.store, err = openStore(d.cfg.StateDir, d.version, d.logger); err != nil {
		return err
	}
	d.prices.open(d.store, d.logger)
	d.library, err = documents.Open(documents.Options{
		Dir: d.cfg.PolicyDir, StateDir: filepath.Join(d.cfg.StateDir, documentsDir), Store: d.store, Logger: d.logger, OnChange: func(c documents.Change) { d.policy.put(c); d.people.turn() },
	})
	return err
}

func (d *Daemon) openSandboxes() error {
	bundle, err := hostBundle()
	if err != nil {
		return fmt.Errorf("host CA bundle: %w", err)
	}
	hooks := map[kernel.Hook]bool{}
	for _, h := range d.fence.Hooks() {
		hooks[h] = true
	}
	d.foreign = &foreignNetworks{fence: d.fence, base: d.cgroupBase}
	d.sandboxes, err = sandbox.NewManager(sandbox.Options{
		Dir: filepath.Join(d.cfg.RunDir, "sandboxes"), CgroupBase: d.cgroupBase, Fence: d.fence, Gateway: gatewayRef{d}, Log: d.log,
		UIDs: sandbox.UIDs{Dir: d.cfg.LockDir, Range: sandbox.UIDRange(d.cfg.UIDRange)}, Init: d.initFile,
		Operators: uint32(max(d.operators, 0)),
		UnixHooks: hooks[kernel.HookConnectUnix] && hooks[kernel.HookSendmsgUnix],
		Snapshot:  d.library.Snapshot, Bundle: bundle, Version: d.version, Logger: d.logger,
		Attestation: sandbox.Attestation{Every: d.cfg.Attest.Interval, ReportOnly: d.cfg.Attest.OnDifference == OnDifferenceReport},
		Closed:      d.ender.look, Foreign: d.foreign, Often: func(e *event.Event) { d.repeats.each(e) }, Ended: d.sandboxEnded, Drain: d.drainRecords,
		Spare: d.cfg.Spare,
	})
	return err
}

// gatewayRef lets the manager call a gateway that is made after it.
type gatewayRef struct{ d *Daemon }

func (g gatewayRef) Call(ctx context.Context, t wire.Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error) {
	return g.d.gateway.Call(ctx, t, payload, fds...)
}

func (d *Daemon) openGateway() (err error) {
	dir := filepath.Join(d.cfg.RunDir, "gateway")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if err := d.fenceGateway(); err != nil {
		return err
	}
	code, err := seccomp.Compile(seccomp.Options{AllowMark: true})
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if d.filter, err = wire.Seal("gateway-filter", code); err != nil {
		return err
	}
	conf, err := d.gatewayConfig()
	if err != nil {
		return err
	}
	d.clients = d.newClients()
	desk := &keeper.Desk{Registry: d.sandboxes, Log: d.log, Counters: d.counters, Seen: d.gatewaySaid, Clients: d.clients.name, Approval: d.egressApproval, ModelApproval: d.modelApproval, Budgets: d.budgets.ledger.Exchange, Now: time.Now, TakenOver: d.taken}
	d.budgets.living = desk.Living
	d.gateway = keeper.NewGateway(keeper.GatewayOptions{
		Binary: ownBinary, Dir: dir, CgroupFD: d.gwCgroup, UID: d.cfg.Gateway.UID, GID: d.cfg.Gateway.GID, Outlive: d.cfg.Gateway.Outlive,
		Filter: d.filter, Metrics: func() (*os.File, error) { return listenMetrics(d.cfg.Metrics) }, Config: conf, Handler: desk.Handle, Takeover: d.takeOver, Feed: d.feed, Ready: d.gatewayReady, Logger: d.logger, Changed: d.daemonEvent,
	})
	return nil
}

func (d *Daemon) gatewayConfig() (*gatewayd.Config, error) {
	c := &gatewayd.Config{Hosts: d.cfg.Gateway.Hosts, UID: d.cfg.Gateway.UID, GID: d.cfg.Gateway.GID, Metrics: d.cfg.Metrics.Listen}
	var err error
	c.RootCAs, err = readRoots("gateway.rootCAs", d.cfg.Gateway.RootCAs)
	return c, err
}

// fenceGateway puts the gateway's cgroup behind the same programs.
func (d *Daemon) fenceGateway() (err error) {
	path := filepath.Join(d.cgroupBase, "gateway")
	err = os.Mkdir(path, 0o755)
	switch {
	case err == nil:
		d.gwFence, err = d.attachGateway(path)
	case errors.Is(err, os.ErrExist):
		if d.gwFence, err = d.fence.TakeOverSandbox(path, gatewayNumber); err != nil {
			d.logger.Warn("the gateway's cgroup cannot be taken over; it is made again", "error", err)
			d.gwFence, err = d.remakeGateway(path)
		}
	}
	if err != nil {
		return fmt.Errorf("gateway cgroup: %w", err)
	}
	if d.gwFence.State().Policy == gatewayTableB {
		d.tables = 1
	}
	d.gwCgroup, err = os.Open(path)
	return err
}

func (d *Daemon) attachGateway(path string) (*kernel.Sandbox, error) {
	snap := d.library.Snapshot()
	table := gatewayTable(snap.UpstreamPrefixes(), snap.DatagramPorts(), d.node().resolvers)
	if err := d.fence.DropPolicy(gatewayTableA, gatewayTableB); err != nil {
		return nil, err
	}
	if err := d.fence.PutCIDRs(gatewayTableA, table); err != nil {
		return nil, err
	}
	return d.fence.AttachSandbox(path, kernel.State{Sandbox: gatewayNumber, Policy: gatewayTableA, Flags: kernel.FlagGateway})
}

func (d *Daemon) remakeGateway(path string) (*kernel.Sandbox, error) {
	if err := sandbox.RemoveCgroup(path); err != nil {
		return nil, err
	}
	if err := d.fence.Forget(gatewayNumber); err != nil {
		d.logger.Warn("old pins of the gateway", "error", err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	return d.attachGateway(path)
}

// openGatewayTable switches the gateway's cgroup to the policy of now.
func (d *Daemon) openGatewayTable() error {
	d.opening.Lock()
	defer d.opening.Unlock()
	snap := d.library.Snapshot()
	next := []uint32{gatewayTableB, gatewayTableA}[d.tables]
	if err := d.fence.DropPolicy(next); err != nil {
		return err
	}
	if err := d.fence.PutCIDRs(next, gatewayTable(snap.UpstreamPrefixes(), snap.DatagramPorts(), d.node().resolvers)); err != nil {
		return err
	}
	st := d.gwFence.State()
	st.Policy, st.Generation = next, uint32(snap.Revision())
	if err := d.gwFence.SetState(st); err != nil {
		return err
	}
	d.tables = 1 - d.tables
	return nil
}

// listenMetrics opens the socket on which the gateway serves /metrics.
func listenMetrics(m Metrics) (*os.File, error) {
	network, addr, err := m.address()
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := os.Remove(addr); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer l.Close()
	type filer interface{ File() (*os.File, error) }
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
		if err := os.Chmod(addr, 0o660); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return l.(filer).File()
}

// groupID looks a group up; -1 when there is none, which admits root alone.
func groupID(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return n
}

// feed tells a new gateway everything: policy, secrets, sandboxes.
func (d *Daemon) feed(ctx context.Context, p *wire.Peer) error {
	d.lookAtNode()
	if err := d.openGatewayTable(); err != nil {
		d.logger.Error("policy of the gateway's cgroup", "error", err) // what was open stays
	}
	if err := d.sendNode(ctx, p); err != nil {
		return err
	}
	if err := d.sendSecrets(ctx, p); err != nil {
		return err
	}
	if err := d.prices.send(ctx, p); err != nil {
		return err
	}
	snap := d.library.Snapshot()
	if err := sendSnapshot(ctx, p, snap); err != nil {
		return err
	}
	d.mu.Lock()
	d.fed = snap.Revision()
	d.mu.Unlock()
	if err := d.feedBudgets(ctx, p); err != nil {
		return err
	}
	if err := d.takeOver(ctx, p); err != nil {
		return err
	}
	return d.sandboxes.Announce(ctx, p)
}

type caller interface {
	Call(ctx context.Context, t wire.Type, payload []byte, fds ...*os.File) ([]byte, []*os.File, error)
}

func sendSnapshot(ctx context.Context, p caller, s *policy.Snapshot) error {
	b, err := s.MarshalBinary()
	if err != nil {
		return err
	}
	f, err := wire.Seal("snapshot", b)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := p.Call(ctx, wire.TypeSnapshot, nil, f); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

func (d *Daemon) sendSecrets(ctx context.Context, p caller) error {
	var names []string
	for _, pr := range d.library.Snapshot().Providers() {
		names = append(names, pr.Secrets()...)
	}
	body, problems := d.secrets.Sealed(names)
	var said []string
	for _, err := range problems {
		said = append(said, err.Error())
		d.logger.Warn("provider secret", "error", err)
	}
	d.mu.Lock()
	d.loaded = said
	d.mu.Unlock()
	f, err := wire.Seal("secrets", body)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := p.Call(ctx, wire.TypeSecrets, nil, f); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}
