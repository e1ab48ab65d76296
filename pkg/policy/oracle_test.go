// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// The oracle decides by the prose of the design, on the documents themselves,
// without any index: slow and plain. It shares no code with the decisions but
// the parsed documents and scope.Selector.

// ask is one request put to the oracle.
type ask struct {
	section      Section
	host         string // canonical
	addr         netip.Addr
	port         uint16
	proto        Proto // 0 means TCP
	http         bool
	method, path string
	model        string
	configured   bool // the builtin layer allows the model
	learns       bool // the sandbox learns
}

// verdict is what the oracle answers.
type verdict struct {
	allow     bool
	rule      string // "document/id", "" = none, "builtin/models"
	delegable bool   // the standing word may be replaced from below
	spoken    bool
}

type orule struct {
	r     *Rule
	doc   *Document
	scope scope.Selector
	sure  bool // its condition was looked at: a delegation counts
}

func (o orule) name() [3]string { return [3]string{o.doc.Scope.String(), o.doc.Name, o.r.ID} }

func oracleRules(docs []Document, p scope.Principal, q ask) (out []orule) {
	for i := range docs {
		d := &docs[i]
		if d.Policy == nil || !d.Scope.Matches(p, "", "") {
			continue
		}
		rules := d.Policy.Egress
		switch q.section {
		case SectionInference:
			rules = d.Policy.Inference
		case SectionTools:
			rules = d.Policy.Tools
		}
		for j := range rules {
			r := &rules[j]
			if r.For != nil && !r.For.Matches(p, "", "") {
				continue
			}
			if !oracleTarget(r, q) {
				continue
			}
			sc := d.Scope
			if r.For != nil {
				sc, _ = sc.Intersect(*r.For)
			}
			out = append(out, orule{r, d, sc, r.HTTP == nil || q.proto != UDP})
		}
	}
	return out
}

func oracleTarget(r *Rule, q ask) bool {
	switch q.section {
	case SectionInference:
		return r.Model.Matches(q.model)
	case SectionTools:
		return r.Tool.Matches(q.model)
	}
	if r.Port != 0 && r.Port != q.port || !oracleSpeaks(r, q.proto) {
		return false
	}
	if q.addr.IsValid() {
		if !r.Prefix.IsValid() || !r.Prefix.Contains(q.addr) {
			return false
		}
		if r.Effect == Allow {
			for _, s := range special {
				if s.prefix.Contains(q.addr) && !(s.prefix.Contains(r.Prefix.Addr()) && r.Prefix.Bits() >= s.prefix.Bits()) {
					return false
				}
			}
		}
		return true
	}
	if !oracleHost(r.Host.String(), q.host) {
		return false
	}
	if r.HTTP != nil && q.proto == UDP {
		return r.Effect == Block // nobody looks into datagrams: the worst is assumed
	}
	if r.HTTP == nil || !q.http {
		return true
	}
	t := r.HTTP.match(q.method, q.path, true)
	return t == condTrue
}

// oracleSpeaks: an allow is for TCP unless it says udp, a deny for both unless
// it says which.
func oracleSpeaks(r *Rule, proto Proto) bool {
	text := r.Target().String()
	udp, tcp := strings.HasSuffix(text, "/udp"), strings.HasSuffix(text, "/tcp")
	if r.Effect == Allow {
		return udp == (proto == UDP)
	}
	return proto == UDP && !tcp || proto != UDP && !udp
}

// oracleHost matches label by label.
func oracleHost(pattern, host string) bool {
	pl, hl := strings.Split(pattern, "."), strings.Split(host, ".")
	switch pl[0] {
	case "**":
		rest := pl[1:]
		if len(hl) < len(rest) {
			return false
		}
		return strings.Join(hl[len(hl)-len(rest):], ".") == strings.Join(rest, ".")
	case "*":
		return len(hl) == len(pl) && strings.Join(hl[1:], ".") == strings.Join(pl[1:], ".")
	}
	return pattern != "" && pattern == host
}

// oracleHolds: a contains b by field and syntax.
func oracleHolds(a, b orule) bool {
	if !a.scope.Contains(b.scope) {
		return false
	}
	if a.r.Section != SectionEgress {
		return a.r.Model.Contains(b.r.Model) && a.r.Tool.Contains(b.r.Tool)
	}
	if a.r.Port != 0 && a.r.Port != b.r.Port {
		return false
	}
	if a.r.HTTP != nil && (b.r.HTTP == nil || fmt.Sprint(*a.r.HTTP) != fmt.Sprint(*b.r.HTTP)) {
		return false
	}
	if a.r.Prefix.IsValid() {
		return b.r.Prefix.Bits() >= a.r.Prefix.Bits() && a.r.Prefix.Contains(b.r.Prefix.Addr())
	}
	ap, bp := a.r.Host.String(), b.r.Host.String()
	switch {
	case ap == bp, ap == "**":
		return true
	case strings.HasPrefix(ap, "**."):
		base := strings.TrimLeft(bp, "*")
		return strings.HasSuffix("."+strings.TrimPrefix(base, "."), ap[2:])
	case strings.HasPrefix(ap, "*."):
		return !strings.HasPrefix(bp, "*") && oracleHost(ap, bp)
	}
	return false
}

func oracle(docs []Document, p scope.Principal, q ask) verdict {
	rules := oracleRules(docs, p, q)
	var v verdict
	var bound []verdict
	if q.section == SectionInference && q.configured {
		v = verdict{allow: true, rule: "builtin/models", delegable: true, spoken: true}
	}
	if _, special := SpecialPurpose(q.addr); q.learns && q.section == SectionEgress && q.proto != UDP && !special {
		v = verdict{allow: true, rule: "builtin/learn", delegable: true, spoken: true}
	}
	for l := scope.LevelOrg; l <= scope.LevelSandbox; l++ {
		var layer []orule
		for _, r := range rules {
			if r.doc.Scope.Level() == l && !r.r.Mandatory {
				layer = append(layer, r)
			}
		}
		var left []orule
		for _, r := range layer {
			beaten := false
			for _, s := range layer {
				if oracleHolds(r, s) && !oracleHolds(s, r) {
					beaten = true
				}
			}
			if !beaten {
				left = append(left, r)
			}
		}
		if len(left) == 0 {
			continue
		}
		word := strictest(left)
		if !v.spoken || v.delegable || v.allow && !word.allow {
			v = word
		}
		for _, w := range bound { // what stands above and was not delegated goes on standing
			if v.allow && !w.allow {
				v = w
			}
		}
		if !word.delegable {
			bound = append(bound, word)
		}
	}
	var floors []orule
	for _, r := range rules {
		if r.r.Mandatory {
			floors = append(floors, r)
		}
	}
	if len(floors) == 0 {
		return v
	}
	floor := strictest(floors)
	if v.allow || v.rule == "" {
		return floor
	}
	for _, r := range rules {
		if r.r.ID != "" && r.doc.Name+"/"+r.r.ID == v.rule {
			floors = append(floors, r)
		}
	}
	floor = strictest(floors)
	floor.delegable = false
	return floor
}

func strictest(rules []orule) verdict {
	v := verdict{allow: true, delegable: true, spoken: true}
	for _, r := range rules {
		if r.r.Effect == Block {
			v.allow = false
		}
	}
	var best [3]string
	for _, r := range rules {
		if (r.r.Effect == Allow) != v.allow {
			continue
		}
		v.delegable = v.delegable && r.r.Delegable && r.sure
		if n := r.name(); v.rule == "" || less(n, best) {
			best, v.rule = n, n[1]+"/"+n[2]
		}
	}
	return v
}

func less(a, b [3]string) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
