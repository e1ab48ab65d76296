// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// specVersion is the first byte of an encoded Spec. Init and keeper are built
// together; the byte makes a mixed pair fail with a clear error.
const specVersion = 2

// maxItems bounds every list in an encoded Spec.
const maxItems = 1 << 16

// ErrSpec is wrapped by every error of [DecodeSpec].
var ErrSpec = errors.New("confine: malformed launch specification")

// AppendBinary appends the wire form of s: fields in declaration order,
// integers as varints, strings and lists with their length first. It exists so
// that init needs no reflection.
func (s *Spec) AppendBinary(b []byte) ([]byte, error) {
	w := writer{b: append(b, specVersion)}
	w.str(s.SandboxID)
	w.str(s.Hostname)
	w.strs(s.Argv)
	w.strs(s.Env)
	w.str(s.Dir)
	w.uint(uint64(s.Identity.UID))
	w.uint(uint64(s.Identity.GID))
	w.uint(uint64(len(s.Identity.Groups)))
	for _, g := range s.Identity.Groups {
		w.uint(uint64(g))
	}
	w.bool(s.Identity.UserNS)
	w.uint(uint64(len(s.Mounts)))
	for i := range s.Mounts {
		w.mount(&s.Mounts[i])
	}
	w.int(int64(s.Landlock.MinABI))
	w.uint(uint64(len(s.Landlock.Rules)))
	for _, r := range s.Landlock.Rules {
		w.str(r.Path)
		w.str(r.Access)
		w.bool(r.Optional)
	}
	w.uint(uint64(len(s.Rlimits)))
	for _, r := range s.Rlimits {
		w.int(int64(r.Resource))
		w.uint(r.Value)
	}
	w.int(int64(s.RootFD))
	w.int(int64(s.SeccompFD))
	for _, fd := range s.StdioFDs {
		w.int(int64(fd))
	}
	w.int(int64(s.StatusFD))
	w.int(int64(s.ListenFD))
	w.bool(s.TTY)
	w.uint(uint64(s.Rows))
	w.uint(uint64(s.Cols))
	return w.b, nil
}

// DecodeSpec reads what AppendBinary wrote. Trailing bytes are an error.
func DecodeSpec(b []byte) (*Spec, error) {
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != specVersion {
		return nil, fmt.Errorf("%w: version %d, this init knows %d", ErrSpec, v, specVersion)
	}
	s := &Spec{SandboxID: r.str(), Hostname: r.str(), Argv: r.strs(), Env: r.strs(), Dir: r.str()}
	s.Identity.UID, s.Identity.GID = r.u32(), r.u32()
	for n := r.count(); n > 0; n-- {
		s.Identity.Groups = append(s.Identity.Groups, r.u32())
	}
	s.Identity.UserNS = r.bool()
	for n := r.count(); n > 0 && r.err == nil; n-- {
		s.Mounts = append(s.Mounts, r.mount())
	}
	s.Landlock.MinABI = r.int()
	for n := r.count(); n > 0 && r.err == nil; n-- {
		s.Landlock.Rules = append(s.Landlock.Rules, LandlockRule{Path: r.str(), Access: r.str(), Optional: r.bool()})
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		s.Rlimits = append(s.Rlimits, Rlimit{Resource: r.int(), Value: r.uint()})
	}
	s.RootFD, s.SeccompFD = r.int(), r.int()
	for i := range s.StdioFDs {
		s.StdioFDs[i] = r.int()
	}
	s.StatusFD, s.ListenFD = r.int(), r.int()
	s.TTY, s.Rows, s.Cols = r.bool(), r.u16(), r.u16()
	if r.err == nil && len(r.b) != 0 {
		r.fail("trailing bytes")
	}
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

type writer struct{ b []byte }

func (w *writer) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)   { w.b = binary.AppendVarint(w.b, v) }

func (w *writer) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

func (w *writer) str(s string) {
	w.uint(uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) strs(l []string) {
	w.uint(uint64(len(l)))
	for _, s := range l {
		w.str(s)
	}
}

func (w *writer) mount(m *Mount) {
	w.str(string(m.Kind))
	w.str(m.Target)
	w.int(int64(m.FD))
	w.int(int64(m.TopFD))
	w.bool(m.IsFile)
	w.bool(m.ReadOnly)
	w.bool(m.Exec)
	w.bool(m.Dev)
	w.int(m.Size)
	w.uint(uint64(m.Mode))
	w.str(m.Data)
	w.uint(uint64(m.UID))
	w.uint(uint64(m.GID))
}

// reader consumes b; after the first error every method returns zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrSpec, what)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail("truncated")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bool() bool {
	v := r.byte()
	if v > 1 {
		r.fail("boolean out of range")
	}
	return v == 1
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad integer")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int64() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail("bad integer")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int {
	v := r.int64()
	if v < math.MinInt32 || v > math.MaxInt32 {
		r.fail("integer out of range")
		return 0
	}
	return int(v)
}

func (r *reader) u32() uint32 {
	v := r.uint()
	if v > math.MaxUint32 {
		r.fail("integer out of range")
		return 0
	}
	return uint32(v)
}

func (r *reader) u16() uint16 {
	v := r.uint()
	if v > math.MaxUint16 {
		r.fail("integer out of range")
		return 0
	}
	return uint16(v)
}

func (r *reader) count() int {
	v := r.uint()
	if v > maxItems || v > uint64(len(r.b)) {
		r.fail("list too long")
		return 0
	}
	return int(v)
}

func (r *reader) str() string {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail("truncated string")
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) strs() []string {
	n := r.count()
	if n == 0 || r.err != nil {
		return nil
	}
	l := make([]string, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		l = append(l, r.str())
	}
	return l
}

func (r *reader) mount() Mount {
	return Mount{
		Kind: MountKind(r.str()), Target: r.str(), FD: r.int(), TopFD: r.int(), IsFile: r.bool(), ReadOnly: r.bool(),
		Exec: r.bool(), Dev: r.bool(), Size: r.int64(), Mode: r.u32(), Data: r.str(), UID: r.u32(), GID: r.u32(),
	}
}
