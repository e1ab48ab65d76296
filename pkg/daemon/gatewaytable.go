// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"net/netip"
	"net/url"
	"strconv"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// Numbers of the node itself in the kernel's tables; sandboxes use the lower
// half of the range.
const (
	gatewayNumber = 1<<31 + 1
	gatewayTableA = 1<<31 + 1
	gatewayTableB = 1<<31 + 2
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
func gatewayTable(items []documents.Item, resolvers []netip.AddrPort) []kernel.CIDREntry {
	open := openings(items)
	for _, r := range resolvers {
		p := netip.PrefixFrom(r.Addr(), r.Addr().BitLen())
		open = append(open, opening{p, r.Port(), kernel.ProtoUDP}, opening{p, r.Port(), kernel.ProtoTCP})
	}
	ports := map[uint16]bool{0: true}
	for _, o := range open {
		if o.proto == kernel.ProtoTCP {
			ports[o.port] = true
		}
	}
	type key struct {
		prefix netip.Prefix
		port   uint16
		proto  uint8
	}
	table := map[key]bool{}
	for port := range ports {
		for _, p := range everywhere {
			table[key{p, port, kernel.ProtoTCP}] = true
		}
		for _, p := range closed {
			table[key{p, port, kernel.ProtoTCP}] = false
		}
	}
	for _, o := range open {
		if o.port == 0 {
			for port := range ports {
				table[key{o.prefix.Masked(), port, o.proto}] = true
			}
			continue
		}
		table[key{o.prefix.Masked(), o.port, o.proto}] = true
	}
	out := make([]kernel.CIDREntry, 0, len(table))
	for k, allow := range table {
		out = append(out, kernel.CIDREntry{Prefix: k.prefix, Port: k.port, Proto: k.proto, Allow: allow})
	}
	return out
}

// openings are the private destinations that documents name.
func openings(items []documents.Item) []opening {
	var out []opening
	for _, it := range items {
		if p := it.Policy; p != nil {
			for _, r := range p.Egress {
				for _, pre := range r.ResolvesTo {
					out = append(out, opening{pre, r.Port, kernel.ProtoTCP})
				}
				if r.Prefix.IsValid() && r.Effect != 0 {
					out = append(out, opening{r.Prefix, r.Port, kernel.ProtoTCP})
				}
			}
		}
		if p := it.Provider; p != nil {
			host, port := hostPort(p.BaseURL)
			if a, err := netip.ParseAddr(host); err == nil {
				out = append(out, opening{netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), port, kernel.ProtoTCP})
			}
			for _, pre := range p.ResolvesTo {
				out = append(out, opening{pre, port, kernel.ProtoTCP})
			}
		}
	}
	return out
}

// hostPort takes a checked base URL apart.
func hostPort(base string) (string, uint16) {
	u, err := url.Parse(base)
	if err != nil {
		return "", 0
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return u.Hostname(), uint16(n)
	}
	if u.Scheme == "http" {
		return u.Hostname(), 80
	}
	return u.Hostname(), 443
}
