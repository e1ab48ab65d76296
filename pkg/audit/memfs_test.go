// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

var errCrash = errors.New("the machine has crashed")

// memFS is a directory in memory that knows what of it would survive a crash
// and fails on request.
type memFS struct {
	mu      sync.Mutex
	names   map[string]*inode // as programs see it
	durable map[string]*inode // as the disk has it
	ops     int               // operations that change something
	crashAt int               // the operation at which the machine crashes, 0 for never
	failAt  int               // the operation that fails once with EIO, 0 for none
	space   int               // bytes that fit, 0 for any number
	crashed bool
	locked  bool
}

type inode struct {
	data   []byte // as programs see it
	synced []byte // as the disk has it for certain
	// pending says that the file was written or cut since the last sync; high is
	// what it was at the last write since then, which may be on the disk.
	pending bool
	high    []byte
}

func newMemFS() *memFS { return &memFS{names: map[string]*inode{}, durable: map[string]*inode{}} }

// step counts an operation. torn is set when the operation is to be done in
// part before it fails.
func (m *memFS) step() (err error, torn bool) {
	if m.crashed {
		return errCrash, false
	}
	m.ops++
	switch m.ops {
	case m.crashAt:
		m.crashed = true
		return errCrash, true
	case m.failAt:
		return syscall.EIO, true
	}
	return nil, false
}

func (m *memFS) Close() error { return nil }

type memLock struct{ m *memFS }

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.locked = false
	return nil
}

func (m *memFS) Lock() (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, ErrLocked
	}
	m.locked = true
	return memLock{m}, nil
}

func (m *memFS) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.names)), nil
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != nil {
		return nil, syscall.EEXIST
	}
	err, torn := m.step()
	if err != nil && !torn {
		return nil, err
	}
	n := &inode{}
	m.names[name] = n
	if err != nil {
		return nil, err
	}
	return &memFile{m, n}, nil
}

func (m *memFS) Open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &memFile{m, n}, nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	if err, torn := m.step(); err != nil && !torn {
		return err
	} else if delete(m.names, name); err != nil {
		return err
	}
	return nil
}

func (m *memFS) SyncDir() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err, _ := m.step(); err != nil {
		return err
	}
	m.durable = maps.Clone(m.names)
	return nil
}

type memFile struct {
	m *memFS
	n *inode
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	err, torn := f.m.step()
	if err != nil && !torn {
		return 0, err
	}
	if err != nil {
		b = b[:len(b)/2]
	}
	if grow := int(off) + len(b) - len(f.n.data); f.m.space > 0 && err == nil && f.m.used()+grow > f.m.space {
		b = b[:max(0, len(b)-(f.m.used()+grow-f.m.space))]
		err = syscall.ENOSPC
	}
	if need := int(off) + len(b); need > len(f.n.data) {
		f.n.data = append(f.n.data, make([]byte, need-len(f.n.data))...)
	}
	copy(f.n.data[off:], b)
	f.n.pending, f.n.high = true, bytes.Clone(f.n.data)
	return len(b), err
}

func (m *memFS) used() (n int) {
	for _, f := range m.names {
		n += len(f.data)
	}
	return n
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err, torn := f.m.step(); err != nil && !torn {
		return err
	} else if err == nil {
		f.n.data = f.n.data[:size:size]
		f.n.pending = true
	} else {
		return err
	}
	return nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err, _ := f.m.step(); err != nil {
		return err
	}
	f.n.synced = bytes.Clone(f.n.data)
	f.n.pending, f.n.high = false, nil
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Linked() (bool, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for _, n := range f.m.names {
		if n == f.n {
			return true, nil
		}
	}
	return false, nil
}

func (f *memFile) Close() error { return nil }

// images are what the disk may hold after a crash: what the program saw, only
// what was synced, and random mixtures, also with holes where a page was not
// written in time.
func (m *memFS) images(seed uint64) map[string]*memFS {
	r := rand.New(rand.NewPCG(seed, 7))
	out := map[string]*memFS{
		"all written":   m.image(m.names, func(n *inode) []byte { return n.data }),
		"only synced":   m.image(m.durable, func(n *inode) []byte { return n.synced }),
		"torn tail":     m.image(m.durable, func(n *inode) []byte { return tear(r, n, false) }),
		"tail and hole": m.image(m.durable, func(n *inode) []byte { return tear(r, n, true) }),
	}
	mixed := map[string]*inode{}
	for _, dir := range []map[string]*inode{m.names, m.durable} {
		for name, n := range dir {
			if m.names[name] == m.durable[name] || r.IntN(2) == 0 {
				mixed[name] = n
			}
		}
	}
	out["any names"] = m.image(mixed, func(n *inode) []byte { return tear(r, n, false) })
	return out
}

func tear(r *rand.Rand, n *inode, hole bool) []byte {
	if !n.pending {
		return n.synced
	}
	if len(n.data) <= len(n.synced) { // a cut that may not have happened
		switch {
		case n.high != nil && r.IntN(2) == 0:
			return n.high
		case r.IntN(2) == 0:
			return n.data
		}
		return n.synced
	}
	b := bytes.Clone(n.data[:len(n.synced)+r.IntN(len(n.data)-len(n.synced)+1)])
	if from := len(n.synced); hole && len(b) > from {
		at := from + r.IntN(len(b)-from)
		clear(b[at:min(len(b), at+1+r.IntN(512))])
	}
	return b
}

func (m *memFS) image(names map[string]*inode, content func(*inode) []byte) *memFS {
	out := newMemFS()
	for name, n := range names {
		b := bytes.Clone(content(n))
		out.names[name] = &inode{data: b, synced: bytes.Clone(b)}
	}
	out.durable = maps.Clone(out.names)
	return out
}
