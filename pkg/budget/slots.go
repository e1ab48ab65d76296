// SPDX-License-Identifier: Apache-2.0

package budget

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unsafe"

	"github.com/ringfence/ringfence/pkg/wire"
)

// MaxLeases is in how many accounts one call can count.
const MaxLeases = wire.MaxBudgetLeases

// SlotsSize is the size of the memory in which a till keeps what is under way: as
// many calls as can run, or wait for the keeper to hear that they were settled.
const SlotsSize = headLen + numSlots*slotLen

const (
	numSlots = 8192
	headLen  = 64
	slotLen  = int(unsafe.Sizeof(slot{}))
	magic    = 0x31544744425f4652 // "RF_BDGT1"
)

// States of a slot, in the order in which a call passes through them. The zero
// value is a slot that is free.
const (
	slotFree uint32 = iota
	slotReserved
	slotSent
	slotSettled
)

// slot is one call. Whoever writes it writes the state last: it may end at any
// instruction. Numbers have the order of the machine.
type slot struct {
	state     atomic.Uint32
	leases    uint32 // how many of the list
	estimated uint64 // 0 or 1
	reserved  int64
	actual    int64
	sequence  uint64 // of the settlement
	list      [MaxLeases]int64
}

// Slots is that memory as the gateway writes it.
type Slots struct {
	slots []slot
	free  []uint16 // a stack: the same few slots are used again, and touch no more memory
}

// NewSlots makes slots of memory of SlotsSize bytes, which are all zero, and
// belong to it from then on.
func NewSlots(mem []byte, holder int64) (*Slots, error) {
	if len(mem) != SlotsSize || uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%8 != 0 {
		return nil, fmt.Errorf("budget: memory for calls under way of %d bytes, not %d", len(mem), SlotsSize)
	}
	binary.NativeEndian.PutUint64(mem[8:], uint64(holder))
	binary.NativeEndian.PutUint64(mem, magic)
	s := &Slots{slots: unsafe.Slice((*slot)(unsafe.Pointer(&mem[headLen])), numSlots), free: make([]uint16, numSlots)}
	for i := range s.free {
		s.free[i] = uint16(numSlots - 1 - i)
	}
	return s, nil
}

// take is a free slot, nil when there is none.
func (s *Slots) take() *slot {
	if len(s.free) == 0 {
		return nil
	}
	i := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return &s.slots[i]
}

func (s *Slots) give(c *slot) {
	c.state.Store(slotFree)
	at := uintptr(unsafe.Pointer(c)) - uintptr(unsafe.Pointer(&s.slots[0]))
	s.free = append(s.free, uint16(at/uintptr(slotLen)))
}

// left is one slot as a gateway that is gone left it.
type left struct {
	state            uint32
	estimated        bool
	reserved, actual int64
	sequence         uint64
	leases           []int64
}

// Left is what was under way in a gateway that is gone. nil is not known.
type Left struct{ calls []left }

// ErrSlots says that the memory is not what a gateway of ours leaves.
var ErrSlots = errors.New("budget: the memory of calls under way is not of this gateway")

// ReadSlots reads what a gateway left. It believes no number: what no gateway of
// ours writes is an error, for the whole.
func ReadSlots(r io.ReaderAt, holder int64) (*Left, error) {
	head := make([]byte, headLen)
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSlots, err)
	}
	if m := binary.NativeEndian.Uint64(head); m == 0 {
		return &Left{}, nil // it never came so far
	} else if m != magic || int64(binary.NativeEndian.Uint64(head[8:])) != holder {
		return nil, ErrSlots
	}
	out := &Left{}
	const chunk = 256
	b := make([]byte, chunk*slotLen)
	for at := 0; at < numSlots; at += chunk {
		if n, err := r.ReadAt(b, int64(headLen+at*slotLen)); n < len(b) {
			return nil, fmt.Errorf("%w: %w", ErrSlots, err)
		}
		for i := range chunk {
			c, ok := readSlot(b[i*slotLen:])
			if !ok {
				return nil, ErrSlots
			}
			if c.state != slotFree {
				out.calls = append(out.calls, c)
			}
		}
	}
	return out, nil
}

func readSlot(b []byte) (c left, ok bool) {
	n := binary.NativeEndian
	c = left{state: n.Uint32(b), estimated: n.Uint64(b[8:]) != 0, reserved: int64(n.Uint64(b[16:])), actual: int64(n.Uint64(b[24:])), sequence: n.Uint64(b[32:])}
	count := n.Uint32(b[4:])
	switch {
	case c.state == slotFree:
		return c, true
	case c.state > slotSettled || count > MaxLeases || c.reserved < 0 || c.state == slotSettled && c.actual < 0:
		return c, false
	}
	for i := range count {
		c.leases = append(c.leases, int64(n.Uint64(b[40+8*i:])))
	}
	return c, true
}
