// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/gateway"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

type order func(p *process, payload []byte, fds []*os.File) ([]byte, []*os.File, error)

// orders is what the keeper may tell the gateway.
var orders = map[wire.Type]order{
	wire.TypeConfig:        (*process).onConfig,
	wire.TypeSnapshot:      (*process).onSnapshot,
	wire.TypeSecrets:       (*process).onSecrets,
	wire.TypePrices:        (*process).onPrices,
	wire.TypeNames:         (*process).onNames,
	wire.TypeSandboxAdd:    (*process).onSandboxAdd,
	wire.TypeSandboxRemove: (*process).onSandboxRemove,
	wire.TypeListeners:     (*process).onListeners,
	wire.TypeSandboxes:     (*process).onSandboxes,
	wire.TypeDrain:         (*process).onDrain,
	wire.TypeNode:          (*process).onNode,
	wire.TypeRevisions:     (*process).onRevisions,
	wire.TypeConnections:   (*process).onConnections,
	wire.TypePlaces:        (*process).onPlaces,
	wire.TypeBudgetJournal: (*process).onBudgetJournal,
}

var errUnconfigured = errors.New("not configured yet")

func (p *process) handle(_ context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	defer wire.CloseAll(fds)
	o := orders[t]
	if o == nil {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("unknown message %d", t)}
	}
	if t != wire.TypeConfig && p.gateway() == nil {
		return nil, nil, errUnconfigured
	}
	return o(p, payload, fds)
}

// gateway is nil before the configuration.
func (p *process) gateway() *gateway.Gateway {
	select {
	case <-p.configured:
		return p.gw
	default:
		return nil
	}
}

func (p *process) onConfig(payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	if len(fds) != 1 {
		return nil, nil, &wire.ProtocolError{Msg: "configuration without its file"}
	}
	var c wire.Config
	if err := c.Decode(payload); err != nil {
		return nil, nil, err
	}
	if _, ok := wire.Speak(wire.Version, c.Version); !ok {
		return nil, nil, fmt.Errorf("the keeper speaks version %d of the messages, this gateway %d: they must not be further apart than one", c.Version, wire.Version)
	}
	if err := p.configure(fds[0]); err != nil {
		return nil, nil, err
	}
	is := p.is
	is.Version = wire.Version
	b, err := is.Encode()
	return b, nil, err
}

// onNode: resolvers and own addresses of the machine have changed.
func (p *process) onNode(payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
	var m wire.Node
	if err := m.Decode(payload); err != nil {
		return nil, nil, err
	}
	p.gw.SetOwnAddrs(m.OwnAddrs)
	return nil, nil, p.resolver.SetServers(m.Resolvers)
}

func (p *process) onSnapshot(_ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	if len(fds) != 1 {
		return nil, nil, &wire.ProtocolError{Msg: "snapshot without its file"}
	}
	b, err := wire.ReadSealed(fds[0])
	if err != nil {
		return nil, nil, err
	}
	s, err := policy.UnmarshalSnapshot(b)
	if err != nil {
		return nil, nil, err
	}
	p.gw.SetSnapshot(s)
	return nil, nil, nil
}

func (p *process) onSecrets(_ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	if len(fds) != 1 {
		return nil, nil, &wire.ProtocolError{Msg: "secrets without their file"}
	}
	b, err := wire.ReadSealed(fds[0])
	if err != nil {
		return nil, nil, err
	}
	var secrets map[string]string
	if err := json.Unmarshal(b, &secrets); err != nil {
		return nil, nil, errors.New("secrets: not a map of strings") // the error's own text could hold a value
	}
	p.gw.SetSecrets(secrets)
	return nil, nil, nil
}

// pendingNames holds names until their sandbox is added.
type pendingNames struct {
	mu sync.Mutex
	m  map[uint32]map[netip.Addr]string
}

func (n *pendingNames) add(m wire.Names) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		n.m = map[uint32]map[netip.Addr]string{}
	}
	if n.m[m.Sandbox] == nil {
		n.m[m.Sandbox] = map[netip.Addr]string{}
	}
	for _, e := range m.Entries {
		n.m[m.Sandbox][e.Addr] = e.Name
	}
}

func (n *pendingNames) take(id uint32) map[netip.Addr]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.m[id]
	delete(n.m, id)
	return out
}

func (p *process) onNames(payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
	var m wire.Names
	if err := m.Decode(payload); err != nil {
		return nil, nil, err
	}
	p.pending.add(m)
	return nil, nil, nil
}

func (p *process) onSandboxAdd(payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
	var m wire.SandboxAdd
	if err := m.Decode(payload); err != nil {
		return nil, nil, err
	}
	fits := len(fds) == wire.Listeners
	if m.Redirected {
		fits = len(fds) == wire.RedirectedListeners || len(fds) == wire.RedirectedListeners+wire.DatagramListeners
	}
	if !fits {
		return nil, nil, &wire.ProtocolError{Msg: fmt.Sprintf("a sandbox with %d listeners", len(fds))}
	}
	names := p.pending.take(m.ID)
	if p.listeners.has(m.ID) { // a restarted keeper announces what is already served
		p.gw.AddNames(m.ID, names)
		return nil, nil, nil
	}
	principal, err := scope.ParsePrincipal(m.Scope)
	if err != nil {
		return nil, nil, err
	}
	sb := gateway.Sandbox{ID: m.ID, Name: m.Name, Principal: principal, Owner: m.Owner, Explain: m.Explain, Redirected: m.Redirected, Learns: m.Learns, Names: names, Kept: true}
	open, err := openListeners(&sb, fds)
	if err != nil {
		return nil, nil, err
	}
	p.money.add(m.Name, m.ID)
	if err := p.gw.AddSandbox(sb); err != nil {
		p.money.remove(m.ID)
		closeAll(open)
		return nil, nil, err
	}
	p.listeners.keep(m.ID, open)
	return nil, nil, nil
}

// socket is one of a sandbox's, as the gateway reads from it.
type socket interface {
	io.Closer
	syscall.Conn
}

func closeAll(list []socket) {
	for _, s := range list {
		_ = s.Close() // nobody uses it
	}
}

// openListeners makes sockets of the descriptors, in the order of
// wire.SandboxAdd, and returns them in that order. On error it keeps none of
// them.
func openListeners(sb *gateway.Sandbox, fds []*os.File) (open []socket, err error) {
	defer func() {
		if err != nil {
			closeAll(open)
			open = nil
			sb.TCP4, sb.TCP6, sb.DNSTCP4, sb.DNSTCP6, sb.DNSUDP4, sb.DNSUDP6 = nil, nil, nil, nil, nil, nil
			sb.UDP4, sb.UDP6, sb.Reply4, sb.Reply6, sb.Datagrams = nil, nil, nil, nil, nil
		}
	}()
	for i, dst := range []*net.Listener{&sb.TCP4, &sb.TCP6, &sb.DNSTCP4, &sb.DNSTCP6} {
		l, err := tcpListener(fds[i])
		if err != nil {
			return open, fmt.Errorf("listener %d: %w", i, err)
		}
		open = append(open, l)
		*dst = l
	}
	packets := []**net.UDPConn{&sb.DNSUDP4, &sb.DNSUDP6}
	if sb.Redirected {
		sb.Datagrams = make([]*net.UDPConn, len(fds)-wire.RedirectedListeners)
		for i := range sb.Datagrams {
			packets = append(packets, &sb.Datagrams[i])
		}
	} else {
		packets = append(packets, &sb.UDP4, &sb.UDP6)
	}
	for i, dst := range packets {
		if *dst, err = packetSocket[*net.UDPConn](fds[4+i]); err != nil {
			return open, fmt.Errorf("listener %d: %w", 4+i, err)
		}
		open = append(open, *dst)
	}
	if sb.Redirected {
		return open, nil
	}
	for i, dst := range []**net.IPConn{&sb.Reply4, &sb.Reply6} {
		if *dst, err = packetSocket[*net.IPConn](fds[8+i]); err != nil {
			return open, fmt.Errorf("socket for answers %d: %w", i, err)
		}
		open = append(open, *dst)
	}
	return open, nil
}

// tcpListener makes a listener of a descriptor, which must be of TCP.
func tcpListener(f *os.File) (*net.TCPListener, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("it is a %T", l)
	}
	return t, nil
}

// packetSocket makes a socket of a descriptor, which must be of that sort.
func packetSocket[T net.PacketConn](f *os.File) (T, error) {
	var none T
	c, err := net.FilePacketConn(f)
	if err != nil {
		return none, err
	}
	s, ok := c.(T)
	if !ok {
		c.Close()
		return none, fmt.Errorf("it is a %T", c)
	}
	return s, nil
}

// kept are the sockets of every sandbox that is served: the gateway reads from
// them, and a restarted keeper can take them back until the process ends, also
// while it drains.
type kept struct {
	mu sync.Mutex
	m  map[uint32][]socket
}

func (k *kept) has(id uint32) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[id] != nil
}

func (k *kept) keep(id uint32, list []socket) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[uint32][]socket{}
	}
	k.m[id] = list
}

// share returns duplicates for a reply, which closes them.
func (k *kept) share(id uint32) ([]*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*os.File
	for _, s := range k.m[id] {
		d, err := duplicate(s)
		if err != nil {
			wire.CloseAll(out)
			return nil, err
		}
		out = append(out, d)
	}
	if out == nil {
		return nil, fmt.Errorf("sandbox %d is not served here", id)
	}
	return out, nil
}

func (k *kept) drop(id uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	closeAll(k.m[id])
	delete(k.m, id)
}

func (p *process) onSandboxRemove(payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
	var id wire.ID
	if err := id.Decode(payload); err != nil {
		return nil, nil, err
	}
	p.gw.RemoveSandbox(uint32(id))
	p.listeners.drop(uint32(id))
	p.money.remove(uint32(id))
	p.pending.take(uint32(id))
	return nil, nil, nil
}

func (p *process) onListeners(payload []byte, _ []*os.File) ([]byte, []*os.File, error) {
	var id wire.ID
	if err := id.Decode(payload); err != nil {
		return nil, nil, err
	}
	fds, err := p.listeners.share(uint32(id))
	return nil, fds, err
}

func (p *process) onSandboxes([]byte, []*os.File) ([]byte, []*os.File, error) {
	b, err := wire.EncodeIDs(p.gw.Sandboxes())
	return b, nil, err
}

func (p *process) onRevisions([]byte, []*os.File) ([]byte, []*os.File, error) {
	b, err := wire.EncodeRevisions(p.gw.Revisions())
	return b, nil, err
}

func (p *process) onConnections([]byte, []*os.File) ([]byte, []*os.File, error) {
	return wire.Connections(p.gw.Connections()).Encode(), nil, nil
}

func (p *process) onDrain([]byte, []*os.File) ([]byte, []*os.File, error) {
	select {
	case <-p.drain:
	default:
		close(p.drain)
	}
	return nil, nil, nil
}

// duplicate makes another descriptor of the same socket.
func duplicate(s syscall.Conn) (*os.File, error) {
	rc, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(p uintptr) { fd, derr = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", derr)
	}
	return os.NewFile(uintptr(fd), "listener"), nil
}
