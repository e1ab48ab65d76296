// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/wire"
)

// foreignNetworks opens listeners in network namespaces that are not ours, by a
// short-lived process in a cgroup of its own: a listener meets the programs of
// the cgroup it was made in for as long as it lives. It is made when something
// is adopted for the first time.
type foreignNetworks struct {
	fence *kernel.Fence
	base  string // the daemon's cgroup

	mu     sync.Mutex // guards what follows
	cgroup *os.File
	at     *kernel.Sandbox
}

var _ sandbox.ForeignNetworks = (*foreignNetworks)(nil)

// Ready makes the cgroup and fences it, or takes over that of a former daemon.
func (n *foreignNetworks) Ready() (*os.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cgroup != nil {
		return n.cgroup, n.at.Attested()
	}
	path := filepath.Join(n.base, "listeners")
	err := os.Mkdir(path, 0o755)
	switch {
	case err == nil:
		n.at, err = n.attach(path)
	case errors.Is(err, os.ErrExist):
		if n.at, err = n.fence.TakeOverListeners(path, listenersNumber); err != nil {
			// Listeners that were made there serve nobody any more.
			err = errors.Join(sandbox.RemoveCgroup(path), n.fence.Forget(listenersNumber), os.Mkdir(path, 0o755))
			if err == nil {
				n.at, err = n.attach(path)
			}
		}
	}
	if err == nil {
		n.cgroup, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cgroup of listeners: %w", err)
	}
	return n.cgroup, nil
}

func (n *foreignNetworks) attach(path string) (*kernel.Sandbox, error) {
	return n.fence.AttachListeners(path, listenersNumber, listenersTable)
}

// close gives up descriptors; the fence stays.
func (n *foreignNetworks) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cgroup != nil {
		n.cgroup.Close()
		n.at.Close() //nolint:errcheck // pins stay
		n.cgroup, n.at = nil, nil
	}
}

// attested says what is wrong with the programs on the cgroup, if there is one.
func (n *foreignNetworks) attested() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		return nil
	}
	return n.at.Attested()
}

// settle removes what a former daemon left, if nobody needs it any more: it is
// for after everything was taken over.
func (n *foreignNetworks) settle(kept int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	path := filepath.Join(n.base, "listeners")
	if _, err := os.Stat(path); n.cgroup != nil || kept > 0 || err != nil {
		return nil
	}
	return errors.Join(sandbox.RemoveCgroup(path), n.fence.Forget(listenersNumber), n.fence.DropPolicy(listenersTable))
}

// remove takes the cgroup away.
func (n *foreignNetworks) remove() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	path := filepath.Join(n.base, "listeners")
	if n.cgroup == nil { // whatever a former daemon left is removed with its pins
		return sandbox.RemoveCgroup(path)
	}
	n.cgroup.Close()
	err := errors.Join(sandbox.EmptyCgroup(path, holderPatience), n.at.Detach(), n.fence.DropPolicy(listenersTable), sandbox.RemoveCgroup(path))
	n.cgroup, n.at = nil, nil
	return err
}

// Descriptors of the process that opens listeners.
const (
	fdOpenerConn = 3
	fdOpenerNS   = 4
)

// openerPatience is how long it may take.
const openerPatience = 10 * time.Second

// Open runs that process.
func (n *foreignNetworks) Open(ctx context.Context, netns *os.File) (*sandbox.Listeners, error) {
	cgroup, err := n.Ready()
	if err != nil {
		return nil, err
	}
	conn, there, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, openerPatience)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, ownBinary, "open-listeners")
	cmd.Env, cmd.Dir, cmd.Stderr = []string{}, "/", &said
	cmd.ExtraFiles = []*os.File{there, netns}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	err = cmd.Start()
	there.Close()
	if err != nil {
		return nil, fmt.Errorf("open listeners: %w", err)
	}
	m, rerr := conn.Recv(make([]byte, wire.BufferLen)) // ends with the process, if not with its word
	if err := errors.Join(rerr, cmd.Wait()); err != nil {
		wire.CloseAll(m.FDs)
		return nil, fmt.Errorf("open listeners: %w: %s", err, strings.TrimSpace(said.String()))
	}
	l, ok := sandbox.ListenersFrom(m.FDs)
	if !ok {
		wire.CloseAll(m.FDs)
		return nil, fmt.Errorf("open listeners: %d descriptors", len(m.FDs))
	}
	return l, nil
}

// OpenListeners is that process: root, for as long as it takes to open the
// sockets in a namespace and hand them over.
func OpenListeners(ctx context.Context) error {
	conn, err := wire.FromFile(os.NewFile(fdOpenerConn, "keeper"))
	if err != nil {
		return err
	}
	defer conn.Close()
	l, err := sandbox.ListenForeign(ctx, os.NewFile(fdOpenerNS, "netns"))
	if err != nil {
		return err
	}
	defer l.Close()
	return conn.Send(wire.Message{Type: wire.TypeListeners, FDs: l.Files()})
}
