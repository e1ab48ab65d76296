// SPDX-License-Identifier: Apache-2.0

package gateway

import "net/netip"

// SetOwnAddrs replaces the node's own addresses: interfaces come and go while
// the gateway runs.
func (g *Gateway) SetOwnAddrs(addrs []netip.Addr) { g.dialer.SetOwnAddrs(addrs) }
