// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is a resolver that answers from a table, over UDP and TCP on the same
// port. Names that are not in the table do not exist.
type DNS struct {
	Addr string // "ip:port"

	udp, tcp *dns.Server

	mu    sync.Mutex
	table map[string][]netip.Addr
	asked []string
	fault int // RCODE of every answer, 0 = none
}

// NewDNS serves on addr ("" = a free port of 127.0.0.1).
func NewDNS(addr string, table map[string][]netip.Addr) (*DNS, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("dns double: %w", err)
	}
	ln, err := net.Listen("tcp", pc.LocalAddr().String())
	if err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("dns double: %w", err)
	}
	d := &DNS{Addr: pc.LocalAddr().String(), table: map[string][]netip.Addr{}}
	for name, addrs := range table {
		d.Set(name, addrs...)
	}
	d.udp = &dns.Server{PacketConn: pc, Handler: d}
	d.tcp = &dns.Server{Listener: ln, Handler: d}
	for _, s := range []*dns.Server{d.udp, d.tcp} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
	}
	return d, nil
}

// Set gives a name its addresses from now on; none removes it.
func (d *DNS) Set(name string, addrs ...netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name = dns.CanonicalName(name)
	if len(addrs) == 0 {
		delete(d.table, name)
		return
	}
	d.table[name] = addrs
}

// SetRCode makes every answer fail with this code (0 = answer again).
func (d *DNS) SetRCode(rcode int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = rcode
}

// Asked returns the questions so far as "name. TYPE".
func (d *DNS) Asked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.asked...)
}

// ServeDNS answers one query.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(q.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		_ = w.WriteMsg(m)
		return
	}
	qu := q.Question[0]
	d.asked = append(d.asked, strings.ToLower(qu.Name)+" "+dns.TypeToString[qu.Qtype])
	addrs, ok := d.table[dns.CanonicalName(qu.Name)]
	switch {
	case d.fault != 0:
		m.Rcode = d.fault
	case !ok:
		m.Rcode = dns.RcodeNameError
	}
	if m.Rcode == 0 {
		for _, a := range addrs {
			h := dns.RR_Header{Name: qu.Name, Class: dns.ClassINET, Ttl: 1}
			switch {
			case a.Is4() && qu.Qtype == dns.TypeA:
				h.Rrtype = dns.TypeA
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			case a.Is6() && qu.Qtype == dns.TypeAAAA:
				h.Rrtype = dns.TypeAAAA
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
			}
		}
	}
	_ = w.WriteMsg(m)
}

// Close ends both servers.
func (d *DNS) Close() error {
	err := d.udp.Shutdown()
	if e := d.tcp.Shutdown(); err == nil {
		err = e
	}
	return err
}
