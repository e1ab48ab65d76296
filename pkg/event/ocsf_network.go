// SPDX-License-Identifier: Apache-2.0

package event

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

var (
	classNetwork = class{uid: 4001, caption: "Network Activity", categoryUID: 4, category: "Network Activity", hostProfile: true, device: true}
	classHTTP    = class{uid: 4002, caption: "HTTP Activity", categoryUID: 4, category: "Network Activity", hostProfile: true, device: true}
	classDNS     = class{uid: 4003, caption: "DNS Activity", categoryUID: 4, category: "Network Activity", hostProfile: true, device: true}
)

var networkVerbs = verbs{
	"open": {1, "Open"}, "close": {2, "Close"}, "reset": {3, "Reset"}, "fail": {4, "Fail"},
	"traffic": {6, "Traffic"}, "listen": {7, "Listen"}, "bind": {7, "Listen"},
}

func networkActivity(e *Event) activity {
	if e.Verdict.denied() {
		return activity{5, "Refuse"}
	}
	return networkVerbs.find(e.Activity, activity{1, "Open"})
}

func kernelDenialActivity(e *Event) activity {
	if e.Verdict.denied() {
		return activity{5, "Refuse"}
	}
	return activity{6, "Traffic"}
}

var dnsVerbs = verbs{"response": {2, "Response"}, "traffic": {6, "Traffic"}}

func dnsActivity(e *Event) activity { return dnsVerbs.find(e.Activity, activity{1, "Query"}) }

var httpVerbs = map[string]activity{
	"CONNECT": {1, "Connect"}, "DELETE": {2, "Delete"}, "GET": {3, "Get"}, "HEAD": {4, "Head"}, "OPTIONS": {5, "Options"},
	"POST": {6, "Post"}, "PUT": {7, "Put"}, "TRACE": {8, "Trace"}, "PATCH": {9, "Patch"},
}

func httpActivity(e *Event) activity {
	if a, ok := httpVerbs[e.Method]; ok {
		return a
	}
	return other(e.Method)
}

func networkBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendEndpoints(j, e)
	appendConnection(j, e)
	appendTraffic(j, e)
}

func dnsBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendSource(j, e)
	// dst_endpoint is the resolver that was asked; DstName is the question.
	if ip, port := endpointAddr(e.DstAddr, e.DstPort); ip != "" {
		j.open("dst_endpoint")
		j.str("ip", ip)
		j.num("port", uint64(port))
		j.close()
	}
	if e.DstName != "" {
		j.open("query")
		j.strAlways("hostname", e.DstName)
		j.str("type", e.QueryType)
		j.strAlways("class", "IN")
		j.close()
	}
	if e.RCode != "" {
		c, ok := rcodes[strings.ToUpper(e.RCode)]
		if !ok {
			c = activity{99, e.RCode}
		}
		j.enum("rcode_id", c.id, "rcode", c.name)
	}
	if e.PeerAddr != "" {
		j.openList("answers")
		for answer := range strings.FieldsSeq(e.PeerAddr) {
			j.openItem()
			j.strAlways("rdata", answer)
			j.str("type", e.QueryType)
			j.close()
		}
		j.closeList()
	}
	appendConnection(j, e)
}

var rcodes = map[string]activity{
	"NOERROR": {0, "NoError"}, "FORMERR": {1, "FormError"}, "SERVFAIL": {2, "ServError"}, "NXDOMAIN": {3, "NXDomain"},
	"NOTIMP": {4, "NotImp"}, "REFUSED": {5, "Refused"}, "YXDOMAIN": {6, "YXDomain"}, "NOTAUTH": {9, "NotAuth"},
}

func httpBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendEndpoints(j, e)
	appendConnection(j, e)
	appendHTTP(j, e, true)
	appendTraffic(j, e)
}

// appendHTTP writes http_request (always, if asked for) and http_response.
func appendHTTP(j *jsonBuf, e *Event, always bool) {
	if always || e.URL != "" || e.Method != "" {
		j.open("http_request")
		if _, ok := httpVerbs[e.Method]; ok {
			j.strAlways("http_method", e.Method) // the schema knows these nine only; others are in unmapped
		}
		appendURL(j, e.URL)
		j.close()
	}
	if e.Status != 0 {
		j.open("http_response")
		j.numAlways("code", uint64(e.Status))
		j.close()
	}
}

func appendURL(j *jsonBuf, s string) {
	if s == "" {
		return
	}
	j.open("url")
	j.strAlways("url_string", s)
	if u, err := url.Parse(s); err == nil {
		j.str("scheme", u.Scheme)
		j.str("hostname", u.Hostname())
		if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
			j.numAlways("port", p)
		}
		j.str("path", u.Path)
	}
	j.close()
}

// appendEndpoints writes both ends; the class needs at least one of them.
func appendEndpoints(j *jsonBuf, e *Event) {
	appendSource(j, e)
	ip, port := endpointAddr(e.DstAddr, e.DstPort)
	if ip == "" && e.DstName == "" {
		return
	}
	j.open("dst_endpoint")
	j.str("hostname", e.DstName)
	j.str("ip", ip)
	j.num("port", uint64(port))
	j.close()
}

// appendSource always writes src_endpoint: the sandbox, if nothing better is known.
func appendSource(j *jsonBuf, e *Event) {
	ip, port := endpointAddr(e.SrcAddr, 0)
	j.open("src_endpoint")
	j.str("uid", e.Sandbox)
	j.str("ip", ip)
	j.num("port", uint64(port))
	switch {
	case e.Sandbox != "":
		j.str("name", scopeSegment(e.Scope, "agent"))
	case ip == "":
		j.strAlways("name", "node")
	}
	j.close()
}

// endpointAddr splits "ip:port" or a plain "ip". Text that is not an address
// gives "": it must not reach an ip_t.
func endpointAddr(s string, port uint16) (string, uint16) {
	if s == "" {
		return "", port
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().WithZone("").String(), ap.Port()
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return a.WithZone("").String(), port
	}
	return "", port
}

var protoNumbers = map[string]uint64{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}

func appendConnection(j *jsonBuf, e *Event) {
	j.open("connection_info")
	if e.Direction == "local" {
		j.enum("direction_id", 4, "direction", "Local")
	} else {
		j.enum("direction_id", 2, "direction", "Outbound")
	}
	j.str("protocol_name", e.Proto)
	if n, ok := protoNumbers[e.Proto]; ok {
		j.numAlways("protocol_num", n)
	}
	if a, _ := endpointAddr(e.DstAddr, 0); a != "" {
		if strings.Contains(a, ":") {
			j.enum("protocol_ver_id", 6, "protocol_ver", "Internet Protocol version 6 (IPv6)")
		} else {
			j.enum("protocol_ver_id", 4, "protocol_ver", "Internet Protocol version 4 (IPv4)")
		}
	}
	j.close()
}

func appendTraffic(j *jsonBuf, e *Event) {
	if e.BytesIn == 0 && e.BytesOut == 0 && e.DatagramsIn == 0 && e.DatagramsOut == 0 {
		return
	}
	j.open("traffic")
	j.numAlways("bytes_in", e.BytesIn)
	j.numAlways("bytes_out", e.BytesOut)
	j.num("packets_in", e.DatagramsIn)
	j.num("packets_out", e.DatagramsOut)
	j.close()
}
