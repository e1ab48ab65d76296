// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
)

// The kernel's tree of address rules is shared out as its table of names is: half stays
// free for changes, and nobody's rules, times sandboxes, take all of the rest. A part
// of somebody's rules would be another policy than the one that was written, so a
// sandbox has all of them in the tree or none: then it reaches no literal address.
const (
	addrTree   = 1 << 22 // its size (bpf/maps.h)
	addrsEach  = 64      // entries that each of 1,024 sandboxes has for certain
	addrsMost  = 1 << 18 // and has at most
	addrsShare = addrTree/2 - 1024*addrsEach
)

// ErrNoAddrRoom says that the rules for addresses that hold for a sandbox are more than it
// may have in the kernel's tree.
var ErrNoAddrRoom = errors.New("the kernel's tree has no room for the address rules of this sandbox beside those of its owner's others; write fewer or wider prefixes, or stop sandboxes")

func newAddrRoom() room { return room{each: addrsEach, most: addrsMost, share: addrsShare} }

// fitAddrs takes room for what a policy says of addresses: all of it, or none, with
// false.
func (s *Sandbox) fitAddrs(n int) bool {
	got := s.m.addrs.take(s.Record.Number, s.Record.Owner, entries{named: n})
	if got.named == n {
		return true
	}
	s.m.addrs.take(s.Record.Number, s.Record.Owner, entries{})
	return false
}

// addrEntries are what the kernel has of a view of this sandbox.
func (s *Sandbox) addrEntries(v *policy.View) []kernel.CIDREntry {
	if s.noAddrs {
		return nil
	}
	return CIDREntries(v)
}
