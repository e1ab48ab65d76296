// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"hash/maphash"
	"net/netip"
	"os"
	"testing"

	"github.com/ringfence/ringfence/pkg/kernel"
)

func TestCloses(t *testing.T) {
	a, b := netip.MustParseAddr("198.18.1.0"), netip.MustParseAddr("198.18.1.1")
	type table = map[netip.Addr][]kernel.NameEntry
	entry := func(at netip.Addr, port uint16, rule uint32) kernel.NameEntry {
		return kernel.NameEntry{Addr: at, Port: port, Proto: kernel.ProtoTCP, Rule: rule}
	}
	web := kernel.CIDREntry{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Port: 80, Proto: kernel.ProtoTCP, Allow: true, Rule: 1}
	shut, other := web, web
	shut.Allow, other.Rule = false, 9
	digest := (&Manager{seed: maphash.MakeSeed()}).digest
	none := digest(nil)
	for _, tt := range []struct {
		name       string
		old, next  table
		was, is    uint64
		wantCloses bool
	}{
		{"nothing", nil, nil, none, none, false},
		{"the same by another rule", table{a: {entry(a, 443, 1)}}, table{a: {entry(a, 443, 2)}}, none, none, false},
		{"one more name", table{a: {entry(a, 443, 1)}}, table{a: {entry(a, 443, 1)}, b: {entry(b, 443, 1)}}, none, none, false},
		{"one more port", table{a: {entry(a, 443, 1)}}, table{a: {entry(a, 80, 1), entry(a, 443, 1)}}, none, none, false},
		{"a name less", table{a: {entry(a, 443, 1)}, b: {entry(b, 443, 1)}}, table{a: {entry(a, 443, 1)}}, none, none, true},
		{"another port", table{a: {entry(a, 443, 1)}}, table{a: {entry(a, 80, 1)}}, none, none, true},
		{"every port, then one", table{a: {entry(a, 0, 1)}}, table{a: {entry(a, 80, 1)}}, none, none, true},
		{"addresses by another rule", nil, nil, digest([]kernel.CIDREntry{web}), digest([]kernel.CIDREntry{other}), false},
		{"an address that is denied now", nil, nil, digest([]kernel.CIDREntry{web}), digest([]kernel.CIDREntry{shut}), true},
		{"addresses that are gone", nil, nil, digest([]kernel.CIDREntry{web}), none, true},
		{"what a former keeper wrote", nil, nil, 0, none, true},
	} {
		if got := closes(tt.old, tt.next, tt.was, tt.is); got != tt.wantCloses {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// A process that got the pid of an init that is gone is not its sandbox.
func TestNetworkIsTheSandboxsOwn(t *testing.T) {
	own, err := namespacesOf("self")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		pid  int
		ino  uint64
		open bool
	}{
		{"its own", os.Getpid(), own["net"], true},
		{"another's", os.Getpid(), own["net"] + 1, false},
		{"nobody's", 1 << 30, own["net"], false},
	} {
		s := &Sandbox{Record: Record{Init: Process{PID: tt.pid}, Namespaces: map[string]uint64{"net": tt.ino}}}
		ns, err := s.network()
		if err != nil || (ns != nil) != tt.open {
			t.Errorf("%s: %v, %v", tt.name, ns, err)
		}
		if ns != nil {
			ns.Close()
		}
	}
}
