// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync"
)

// Virtual addresses: 198.18.0.0/15 (RFC 2544) inside a sandbox's own network
// namespace. OwnAddr is the address of lo, RefusalAddr answers for names that
// policy refuses in profiles with explain.
var (
	VirtualPrefix = netip.MustParsePrefix("198.18.0.0/15")
	OwnAddr       = netip.MustParseAddr("198.18.0.1")
	RefusalAddr   = netip.MustParseAddr("198.18.0.2")
	firstVirtual  = netip.MustParseAddr("198.18.1.0")
)

// MaxNames is how many names one sandbox may have alive.
const MaxNames = 4096

// ErrNamesExhausted says that a sandbox has used up its names.
var ErrNamesExhausted = errors.New("this sandbox has reached its limit of 4096 names; stop it and start a new one")

// Names is the table of virtual addresses of one sandbox. An address belongs
// to one name for the sandbox's whole life. Each allocation is written to a
// journal before it is used, so that a restarted keeper knows it too (the
// journal need not survive a machine crash: sandboxes do not either).
type Names struct {
	mu      sync.Mutex
	journal *os.File
	whole   int64 // length of the journal's whole lines
	next    netip.Addr
	byName  map[string]netip.Addr

	byAddr sync.Map // netip.Addr -> string; read without mu, written with it
}

type nameLine struct {
	Addr netip.Addr `json:"addr"`
	Name string     `json:"name"`
}

// OpenNames opens or creates the journal at path and replays it. A torn last
// line (the keeper died while writing) is dropped: its address was never given
// out, and is not given to another name either.
func OpenNames(path string) (*Names, error) {
	n := &Names{next: firstVirtual, byName: map[string]netip.Addr{}}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("names: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("names: %w", err)
	}
	n.journal = f
	if err := n.replay(old); err != nil {
		f.Close()
		return nil, err
	}
	return n, nil
}

func (n *Names) replay(old []byte) error {
	whole := old
	for i := len(old) - 1; i >= 0 && old[i] != '\n'; i-- {
		whole = old[:i]
	}
	dec := json.NewDecoder(bytes.NewReader(whole))
	for dec.More() {
		var l nameLine
		if err := dec.Decode(&l); err != nil {
			return fmt.Errorf("names: journal: %w", err)
		}
		if !VirtualPrefix.Contains(l.Addr) || l.Addr.Less(firstVirtual) || n.Name(l.Addr) != "" || n.byName[l.Name].IsValid() {
			return fmt.Errorf("names: journal: %q at %s is no entry that was written here", l.Name, l.Addr)
		}
		n.byName[l.Name] = l.Addr
		n.byAddr.Store(l.Addr, l.Name)
		if !l.Addr.Less(n.next) {
			n.next = l.Addr.Next()
		}
	}
	n.whole = int64(len(whole))
	if len(whole) != len(old) {
		n.next = n.next.Next()
		if err := n.journal.Truncate(n.whole); err != nil {
			return fmt.Errorf("names: journal: %w", err)
		}
	}
	return nil
}

// Allocate returns the address of name, giving it one if it has none yet.
func (n *Names) Allocate(name string) (addr netip.Addr, fresh bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.byName[name]; ok {
		return a, false, nil
	}
	if len(n.byName) >= MaxNames || !VirtualPrefix.Contains(n.next) {
		return netip.Addr{}, false, ErrNamesExhausted
	}
	a := n.next
	line, err := json.Marshal(nameLine{a, name})
	if err != nil {
		return netip.Addr{}, false, fmt.Errorf("names: %w", err)
	}
	line = append(line, '\n')
	if _, err := n.journal.Write(line); err != nil {
		// A part of the line may be there: the next one must not follow it.
		return netip.Addr{}, false, fmt.Errorf("names: journal: %w", errors.Join(err, n.journal.Truncate(n.whole)))
	}
	n.whole += int64(len(line))
	n.next = a.Next()
	n.byName[name] = a
	n.byAddr.Store(a, name)
	return a, true, nil
}

// Has says whether a name has its address already.
func (n *Names) Has(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.byName[name]
	return ok
}

// Name returns the name behind a virtual address, "" if there is none. It does
// not wait for the journal.
func (n *Names) Name(a netip.Addr) string {
	name, _ := n.byAddr.Load(a)
	s, _ := name.(string)
	return s
}

// All returns a copy of the table.
func (n *Names) All() map[netip.Addr]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[netip.Addr]string, len(n.byName))
	for name, a := range n.byName {
		out[a] = name
	}
	return out
}

// Close closes the journal.
func (n *Names) Close() error { return n.journal.Close() }
