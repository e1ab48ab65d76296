// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/ringfence/ringfence/bpf"
)

// dest is struct rf_dest of bpf/judge.h: a destination and the IPv4 address it
// is or hides.
type dest struct {
	addr   [16]byte // IPv4 as ::ffff:a.b.c.d
	v4     netip.Addr
	hidden bool // behind NAT64 or 6to4
	port   uint16
	proto  uint8
}

func newDest(proto uint8, dst netip.AddrPort) dest {
	d := dest{addr: dst.Addr().As16(), port: dst.Port(), proto: proto}
	if plain := dst.Addr().Unmap(); plain.Is4() {
		d.v4 = plain
	} else if e := Embedded(dst.Addr()); e.Is4() {
		d.v4, d.hidden = e, true
		d.addr = e.As16()
	}
	return d
}

// own is rf_is_local: 127/8, ::1, 198.18.0.1.
func (d *dest) own() bool {
	if d.v4.IsValid() {
		return !d.hidden && (d.v4.IsLoopback() || d.v4 == ownAddr)
	}
	return netip.AddrFrom16(d.addr).IsLoopback()
}

var ownAddr = netip.AddrFrom4([4]byte{198, 18, 0, 1})

// judge is rf_judge of bpf/judge.h on the same maps: what the egress hook says
// of the next packet to d. A test compares the two. Entries may come and go
// meanwhile; see denies.
func (f *Fence) judge(st State, d dest) (allow bool, err error) {
	switch {
	case st.Sandbox == 0, d.proto != ProtoTCP && d.proto != ProtoUDP:
		return false, nil
	case d.v4.IsValid() && d.v4.IsUnspecified():
		return false, nil
	case st.Flags&FlagLoopback != 0 && d.own():
		return true, nil
	case st.Flags&FlagDNS != 0 && d.port == 53:
		return true, nil
	case st.Flags&FlagGateway == 0 && d.v4.IsValid() && virtualRange.Contains(d.v4):
		return f.judgeName(st.Policy, d)
	}
	return f.judgeCIDR(st.Policy, d)
}

// judgeAdopted is rf_judge_adopted of bpf/redirect.h for a flow as sock_diag
// shows it. What a flow on loopback was meant for is not seen there: the
// gateway, which has its other end, ends it.
func (f *Fence) judgeAdopted(st State, d dest) (allow bool, err error) {
	switch {
	case st.Sandbox == 0, d.proto != ProtoTCP && d.proto != ProtoUDP:
		return false, nil
	case d.v4.IsValid() && (d.v4.IsUnspecified() || virtualRange.Contains(d.v4)):
		return false, nil
	case d.own():
		return true, nil
	case d.port == 53, st.Flags&FlagDirect == 0:
		return false, nil
	}
	return f.judgeCIDR(st.Policy, d)
}

func (f *Fence) judgeName(policy uint32, d dest) (bool, error) {
	for _, port := range []uint16{d.port, 0} {
		key := bpf.FenceRfNameKey{Policy: policy, Addr: d.v4.As4(), Port: port, Proto: d.proto}
		var val bpf.FenceRfNameValue
		found, err := lookup(f.maps.Names, &key, &val)
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

func (f *Fence) judgeCIDR(policy uint32, d dest) (bool, error) {
	for _, port := range []uint16{d.port, 0} {
		key := bpf.FenceRfCidrKey{Prefixlen: cidrHeadBits + 128, Policy: policy, Proto: d.proto, Port: port, Addr: d.addr}
		var val bpf.FenceRfCidrValue
		found, err := lookup(f.maps.Cidrs, &key, &val)
		if found || err != nil {
			return allows(val), err
		}
	}
	return false, nil
}

func lookup[K, V any](m *ebpf.Map, key *K, val *V) (found bool, err error) {
	err = m.Lookup(key, val)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look a destination up: %w", err)
	}
	return true, nil
}

// denies says whether the policy of this moment refuses a destination.
func (s *Sandbox) denies(proto uint8, dst netip.AddrPort) (bool, error) {
	return denies(s.judge, s.State, newDest(proto, dst))
}

// denies judges on a state that may change meanwhile. A table is dropped only
// after the state has left it, so a miss counts if the state is the same
// afterwards still.
func denies(judge func(State, dest) (bool, error), state func() State, d dest) (bool, error) {
	for st := state(); ; {
		allow, err := judge(st, d)
		if err != nil {
			return false, err
		}
		now := state()
		if now == st {
			return !allow, nil
		}
		st = now
	}
}
