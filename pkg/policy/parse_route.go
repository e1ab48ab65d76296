// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of a route.
const (
	maxRouteModels  = 64
	maxRouteTargets = 16
	maxRouteTiers   = 8
	maxWeight       = 1000
)

// routes reads the section of that name.
func (d *decoder) routes(m fieldMap, doc *Document) (out []Route) {
	ids := map[string]bool{}
	d.list(m.get("routes"), "routes", func(n *yaml.Node) {
		r, ok := d.route(n, doc)
		if !ok {
			return
		}
		if r.ID != "" && ids[r.ID] {
			d.fail(n, "give each route of a document its own id", "route id %s is used twice", quote(r.ID))
		}
		ids[r.ID] = true
		out = append(out, r)
	})
	return out
}

func (d *decoder) route(n *yaml.Node, doc *Document) (Route, bool) {
	m, ok := d.mapping(n, objRoute)
	if !ok {
		return Route{}, false
	}
	r := Route{ID: d.name(m.get("id"), "id"), Doc: doc.Name, Scope: doc.Scope, File: d.file, Line: d.line + n.Line}
	for _, s := range d.strs(m.get("models"), "models", modelPatternText) {
		p, _ := namePattern(s, "model")
		r.Models = append(r.Models, p)
	}
	if len(r.Models) > maxRouteModels {
		d.fail(m.key["models"], "make several routes of it", "models has %d entries, the limit is %d", len(r.Models), maxRouteModels)
	}
	r.To = d.targets(m.get("to"), "to")
	r.TooLong = d.targets(m.get("tooLong"), "tooLong")
	r.Refused = d.targets(m.get("refused"), "refused")
	r.Sticky = d.boolean(m.get("sticky"), "sticky")
	r.Override = d.boolean(m.get("override"), "override")
	if b := m.get("balance"); b != nil {
		r.Balance = Balance(d.word(b, "balance", balances))
	}
	d.tiers(m, &r)
	if len(r.To) == 0 && len(r.Tiers) == 0 && m.get("to") == nil && m.get("tiers") == nil && !m.unknown {
		d.fail(n, "to: [{provider: NAME}] or tiers", "the route leads nowhere")
	}
	return r, true
}

func modelPatternText(s string) (string, error) {
	p, err := namePattern(s, "model")
	return p.String(), err
}

// targets reads a list of them.
func (d *decoder) targets(n *yaml.Node, what string) (out []RouteTarget) {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "name a provider or a model", "%s is an empty list", what)
	}
	if len(n.Content) > maxRouteTargets {
		d.fail(n, "", "%s has %d entries, the limit is %d", what, len(n.Content), maxRouteTargets)
		return nil
	}
	d.list(n, what, func(n *yaml.Node) {
		m, ok := d.mapping(n, objTarget)
		if !ok {
			return
		}
		t := RouteTarget{Weight: 1, Priority: 1}
		t.Provider = d.name(m.get("provider"), "provider")
		if s, ok := d.str(m.get("model"), "model"); ok {
			p, err := namePattern(s, "model")
			if err != nil || p.Wild {
				d.fail(m.get("model"), "name one model", "model %s must be one model's name", quote(s))
			}
			t.Model = s
		}
		if m.get("provider") == nil && m.get("model") == nil && !m.unknown {
			d.fail(n, "add provider: NAME or model: NAME", "the target names neither a provider nor a model")
		}
		if w := m.get("weight"); w != nil {
			t.Weight = uint32(d.number(w, "weight", 1, maxWeight))
		}
		if p := m.get("priority"); p != nil {
			t.Priority = uint32(d.number(p, "priority", 1, maxRouteTargets))
		}
		out = append(out, t)
	})
	return out
}

// tiers reads them and checks that they leave no request out.
func (d *decoder) tiers(m fieldMap, r *Route) {
	n := m.get("tiers")
	if n == nil {
		return
	}
	if m.get("to") != nil {
		d.fail(m.key["tiers"], "put the targets into the tiers", `a route has "to" or "tiers", not both`)
	}
	if len(n.Content) > maxRouteTiers {
		d.fail(n, "", "tiers has %d entries, the limit is %d", len(n.Content), maxRouteTiers)
		return
	}
	at := uint32(0)
	d.list(n, "tiers", func(n *yaml.Node) {
		tm, ok := d.mapping(n, objTier)
		if !ok {
			return
		}
		t := Tier{Name: d.name(tm.get("name"), "name"), To: d.targets(tm.get("to"), "to")}
		last := len(r.Tiers) == len(m.get("tiers").Content)-1
		b := tm.get("below")
		switch {
		case b == nil && !last:
			d.fail(n, "only the last tier has no bound", "tier %s needs the field \"below\"", quote(t.Name))
		case b != nil && last:
			d.fail(b, "leave it out: the last tier takes all that is left", "the last tier has a bound")
		case b != nil:
			if t.Below, ok = thousandths(b); !ok || t.Below <= at {
				d.fail(b, "write them from the lowest to the highest, such as 0.35", "below must be a number above %s and at most 1, with up to three decimals, found %s", decimalText(at), quote(b.Value))
			}
			at = t.Below
		}
		for i := range r.Tiers {
			if r.Tiers[i].Name == t.Name && t.Name != "" {
				d.fail(n, "", "tier %s is there twice", quote(t.Name))
			}
		}
		r.Tiers = append(r.Tiers, t)
	})
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "", "tiers is an empty list")
	}
}

// thousandths reads "0.35" as 350.
func thousandths(n *yaml.Node) (uint32, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!float" && n.ShortTag() != "!!int" {
		return 0, false
	}
	whole, part, _ := strings.Cut(n.Value, ".")
	if len(part) > 3 || (whole != "0" && whole != "1") {
		return 0, false
	}
	v, err := strconv.ParseUint(whole+(part + "000")[:3], 10, 16)
	return uint32(v), err == nil && v > 0 && v <= 1000
}

func decimalText(v uint32) string { return strconv.FormatFloat(float64(v)/1000, 'f', -1, 64) }

// word reads one of some words and gives its number; the first after a mistake.
func (d *decoder) word(n *yaml.Node, what string, words []string) int {
	s, ok := d.str(n, what)
	if !ok {
		return 0
	}
	for i, w := range words {
		if w == s {
			return i
		}
	}
	d.fail(n, didYouMean(s, words), "unknown %s %s", what, quote(s))
	return 0
}
