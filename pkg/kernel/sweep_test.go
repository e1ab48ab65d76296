// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net/netip"
	"slices"
	"testing"
)

func TestTablesListsWhatAnEarlierKeeperWrote(t *testing.T) {
	f := newFence(t)
	name := []NameEntry{{Addr: netip.MustParseAddr("198.18.1.1"), Port: 443, Proto: ProtoTCP}}
	cidr := []CIDREntry{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Proto: ProtoTCP}}
	for _, p := range []uint32{3, 9} {
		if err := f.PutNames(p, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.PutCIDRs(7, cidr); err != nil {
		t.Fatal(err)
	}
	f.written = ledger{} // another keeper remembers nothing
	if got, err := f.Tables(); err != nil || !slices.Equal(got, []uint32{3, 7, 9}) {
		t.Fatalf("tables %d, %v", got, err)
	}
	if err := f.DropPolicy(3, 7, 9); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Tables(); err != nil || len(got) != 0 {
		t.Errorf("tables %d, %v", got, err)
	}
}
