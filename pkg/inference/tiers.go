// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"github.com/ringfence/ringfence/pkg/inference/complexity"
	"github.com/ringfence/ringfence/pkg/policy"
)

// targets are those of the route, by its tier where it has tiers. A conversation
// that is in a higher tier stays there.
func (x *exchange) targets() []policy.RouteTarget {
	way := x.way
	x.rec.ev.Route = way.Doc + "/" + way.ID
	if len(way.Tiers) == 0 {
		return way.To
	}
	score := complexity.Of(x.facts())
	x.tierAt = tierOf(way, score.Total)
	why := ""
	if s, ok := x.lasts(); ok && s.tier > x.tierAt && s.tier < len(way.Tiers) {
		x.tierAt, why = s.tier, ", where the conversation is"
	}
	t := &way.Tiers[x.tierAt]
	x.rec.ev.Route += " tier " + t.Name + why + ", score " + score.String()
	return t.To
}

// tierOf is the first tier that a score is below.
func tierOf(way *policy.Route, score int) int {
	for i := range way.Tiers {
		if b := way.Tiers[i].Below; b == 0 || score < int(b) {
			return i
		}
	}
	return len(way.Tiers) - 1
}

// facts counts what the score is made of.
func (x *exchange) facts() *complexity.Facts {
	t := &x.tape
	f := &complexity.Facts{Image: t.hasImage(), Output: int(t.outputAsked())}
	f.Text = t.textBytes()
	if i, ok := t.member(0, "tools"); ok {
		t.children(i, func(uint32) bool { f.Tools++; return true })
	}
	for _, k := range schemaKeys {
		if i, ok := t.member(0, k); ok && t.namesSchema(i) {
			f.Structure = true
		}
	}
	for _, k := range []string{"messages", "input", "contents"} {
		if i, ok := t.member(0, k); ok {
			x.newest(i, f)
		}
	}
	if x.d.name == geminiName {
		has := t.geminiFeatures()
		f.Image = has&policy.FeatureVision != 0
		f.Structure = has&policy.FeatureStructured != 0
	}
	return f
}

// newest finds the newest text of a user, and counts the turns.
func (x *exchange) newest(i uint32, f *complexity.Facts) {
	t := &x.tape
	if s, ok := t.text(i); ok {
		f.Newest, f.Turns = []byte(s), 1
		return
	}
	t.children(i, func(c uint32) bool {
		f.Turns++
		role, ok := t.member(c, "role")
		if s, _ := t.text(role); !ok || s != "user" {
			return true
		}
		for _, k := range []string{"content", "parts"} {
			if p, ok := t.member(c, k); ok {
				if text := t.firstText(p); len(text) > 0 {
					f.Newest = text
				}
			}
		}
		return true
	})
}

// firstText is a string, or the texts of a list of parts, one after the other.
func (t *tape) firstText(i uint32) []byte {
	if s, ok := t.text(i); ok {
		return []byte(s)
	}
	var out []byte
	t.children(i, func(c uint32) bool {
		if p, ok := t.member(c, "text"); ok {
			s, _ := t.text(p)
			out = append(append(out, s...), '\n')
		}
		return len(out) < 16<<10
	})
	return out
}
