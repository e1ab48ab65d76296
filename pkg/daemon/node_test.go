// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/ringfence/ringfence/pkg/wire"
)

func TestResolversFollowResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	read := func(configured ...string) nodeFacts {
		t.Helper()
		f, err := readNode(configured, path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := read()
	if len(before.resolvers) > 0 {
		t.Errorf("resolvers without a file: %v", before.resolvers)
	}
	if err := os.WriteFile(path, []byte("# a comment\nsearch example.com\nnameserver 192.0.2.53\nnameserver nonsense\nnameserver 2001:db8::53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	after := read()
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")}
	if !reflect.DeepEqual(after.resolvers, want) || after.equal(before) || !after.equal(read()) {
		t.Errorf("%+v", after)
	}
	if f := read("192.0.2.1:5353"); len(f.resolvers) != 1 || f.resolvers[0] != netip.MustParseAddrPort("192.0.2.1:5353") {
		t.Errorf("the configured one does not win: %v", f.resolvers)
	}
	for _, a := range after.own {
		if a.IsLoopback() {
			t.Errorf("loopback among %v", after.own)
		}
	}
	after.own = []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	if got := after.message(); !reflect.DeepEqual(got, wire.Node{Resolvers: []string{"192.0.2.53:53", "[2001:db8::53]:53"}, OwnAddrs: after.own}) {
		t.Errorf("%+v", got)
	}
}
