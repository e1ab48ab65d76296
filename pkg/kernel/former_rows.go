// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/ringfence/ringfence/bpf"
)

// What layouts 2 and 3 hold alike.

var native = binary.NativeEndian

func state2(b []byte) (State, error) {
	if len(b) != 16 {
		return State{}, fmt.Errorf("a state of %d bytes", len(b))
	}
	return State{native.Uint32(b), native.Uint32(b[4:]), native.Uint32(b[8:]), Flags(native.Uint32(b[12:]))}, nil
}

func name2(k, v []byte) (uint32, NameEntry, error) {
	if len(k) != 12 || len(v) != 4 {
		return 0, NameEntry{}, fmt.Errorf("an entry of %d and %d bytes", len(k), len(v))
	}
	return native.Uint32(k), NameEntry{Addr: netip.AddrFrom4([4]byte(k[4:8])), Port: native.Uint16(k[8:]), Proto: k[10], Rule: native.Uint32(v)}, nil
}

func cidr2(k, v []byte) (uint32, CIDREntry, error) {
	if len(k) != 28 || len(v) != 8 {
		return 0, CIDREntry{}, fmt.Errorf("an entry of %d and %d bytes", len(k), len(v))
	}
	addr, bits := netip.AddrFrom16([16]byte(k[12:])), int(native.Uint32(k))-cidrHeadBits
	if addr.Is4In6() && bits >= 96 {
		addr, bits = addr.Unmap(), bits-96
	}
	p := netip.PrefixFrom(addr, bits)
	return native.Uint32(k[4:]), CIDREntry{Prefix: p, Proto: k[8], Port: native.Uint16(k[10:]), Allow: v[4] == uint8(bpf.FenceRfVerdictKindRF_ALLOW), Rule: native.Uint32(v)}, nil
}
