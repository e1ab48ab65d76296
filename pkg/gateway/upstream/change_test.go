// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

func TestOwnAddressesMayChange(t *testing.T) {
	own := netip.MustParseAddr("9.9.9.9")
	d := NewDialer(DialerConfig{Resolver: table{"x.test": {own}}})
	if _, err := d.Judge(context.Background(), Target{Host: "x.test", Port: 1}); err != nil {
		t.Fatalf("control: %v", err)
	}
	d.SetOwnAddrs([]netip.Addr{own})
	if _, err := d.Judge(context.Background(), Target{Host: "x.test", Port: 1}); err == nil {
		t.Error("a new address of the node is not closed")
	}
}

func TestServersMayChange(t *testing.T) {
	r, err := NewResolver(ResolverConfig{Servers: []string{"192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	r.cache["x.test"] = cached{[]netip.Addr{netip.MustParseAddr("192.0.2.9")}, time.Now().Add(time.Hour)}
	if err := r.SetServers([]string{"nonsense"}); err == nil || len(r.cache) != 1 {
		t.Errorf("nonsense: %v", err)
	}
	if err := r.SetServers([]string{"192.0.2.2", "192.0.2.3:5353"}); err != nil {
		t.Fatal(err)
	}
	if got := *r.servers.Load(); len(got) != 2 || got[0] != "192.0.2.2:53" || got[1] != "192.0.2.3:5353" {
		t.Errorf("%v", got)
	}
	if len(r.cache) != 0 {
		t.Error("answers of the old servers are kept")
	}
}
