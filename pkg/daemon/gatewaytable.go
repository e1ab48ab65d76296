// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"

	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

// Numbers of the node itself in the kernel's tables; sandboxes use the lower
// half of the range.
const (
	gatewayNumber   = sandbox.NodeOwn + 1
	gatewayTableA   = sandbox.NodeOwn + 1
	gatewayTableB   = sandbox.NodeOwn + 2
	listenersNumber = sandbox.NodeOwn + 2
	listenersTable  = sandbox.NodeOwn + 3
)

// everywhere is what the gateway may connect to in the open Internet.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// closed is what the gateway's own cgroup may not connect to unless policy
// lists it: a second lock behind the gateway's own guard, for the case that
// the gateway itself is taken over.
var closed = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "2002::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(in ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, s := range in {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// opening is one exception that a document or the configuration lists.
type opening struct {
	prefix netip.Prefix
	port   uint16 // 0 = every port
	proto  uint8
}

// gatewayTable compiles what the gateway's cgroup may connect to. Within a
// port the kernel takes the longest prefix and looks at port 0 only when the
// port has no entry, so each port that an exception names repeats the rest.
// Datagrams go out to public addresses at the listed ports alone.
func gatewayTable(listed []policy.UpstreamPrefix, datagrams []uint16, resolvers []netip.AddrPort) []kernel.CIDREntry {
	var open []opening
	for _, l := range listed {
		open = append(open, opening{l.Prefix, l.Port, uint8(l.Proto)})
	}
	for _, r := range resolvers {
		p := netip.PrefixFrom(r.Addr(), r.Addr().BitLen())
		open = append(open, opening{p, r.Port(), kernel.ProtoUDP}, opening{p, r.Port(), kernel.ProtoTCP})
	}
	type door struct {
		port  uint16
		proto uint8
	}
	public := map[door]bool{{0, kernel.ProtoTCP}: true} // whether everywhere is open
	for _, o := range open {
		public[door{o.port, o.proto}] = o.proto == kernel.ProtoTCP
	}
	for _, port := range datagrams {
		public[door{port, kernel.ProtoUDP}] = true
	}
	type key struct {
		prefix netip.Prefix
		door
	}
	table := map[key]bool{}
	for d, everyone := range public {
		for _, p := range everywhere {
			table[key{p, d}] = everyone // said either way: the kernel's ::/0 would hold IPv4 too
		}
		for _, p := range closed {
			table[key{p, d}] = false
		}
	}
	for _, o := range open {
		for d := range public {
			if d.proto == o.proto && (o.port == 0 || o.port == d.port) {
				table[key{o.prefix.Masked(), d}] = true
			}
		}
	}
	out := make([]kernel.CIDREntry, 0, len(table))
	for k, allow := range table {
		out = append(out, kernel.CIDREntry{Prefix: k.prefix, Port: k.port, Proto: k.proto, Allow: allow})
	}
	return out
}
