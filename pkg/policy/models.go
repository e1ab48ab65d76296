// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/ringfence/ringfence/pkg/scope"
)

// builtin is the builtin layer's word on a model: it allows one that is configured,
// which is one that a provider of the dialect has or that a route names, or any
// where there is no provider and the trial provider answers.
func (v *View) builtin(dialect, model string) int32 {
	if v.Trial(dialect) || v.RouteFor(model) != nil {
		return builtinRule
	}
	for _, p := range v.provs {
		if _, ok := p.Model(model); ok && p.Dialect == dialect {
			return builtinRule
		}
	}
	return noRule
}

// Inference decides a call of a model.
func (v *View) Inference(dialect, model string) Decision {
	if !builtDialect(dialect) {
		return v.s.refuse(CodeDialect, reasonDialect)
	}
	var buf [32]hit
	f := v.modelFacts(dialect, model)
	m := v.judge(v.s.models.match(buf[:0], v, model), &f)
	return v.verdict(m, v.builtin(dialect, model))
}

// InferenceAt decides a call of a model that a provider would answer. Unlike with
// Inference, conditions can look at the provider.
func (v *View) InferenceAt(p *Provider, model string) Decision {
	if p == nil || !builtDialect(p.Dialect) {
		return v.s.refuse(CodeDialect, reasonDialect)
	}
	var buf [32]hit
	f := v.modelFacts(p.Dialect, model)
	f.provider = p
	m := v.judge(v.s.models.match(buf[:0], v, model), &f)
	return v.verdict(m, v.builtin(p.Dialect, model))
}

func (v *View) modelFacts(dialect, model string) facts {
	return facts{principal: &v.p, now: v.now, clock: v.clock, dialect: dialect, model: model}
}

// ProviderTool decides a tool that the provider would run on its side, such as
// "web_search". Nothing allows one by default, and nobody classifies them.
func (v *View) ProviderTool(tool string) Decision {
	return v.Tool(&Call{Server: scope.ServerProvider, Tool: tool})
}

// openDialects decides for each dialect whether any model could be allowed. A
// witness of every region of the model patterns is tried: each exact name, and
// each prefix followed by a byte that no pattern holds, so the answer is exact.
func (v *View) openDialects() map[string]Decision {
	out := map[string]Decision{}
	for _, dialect := range Dialects() {
		patterns := []scope.Pattern{scope.Any}
		for _, p := range v.provs {
			for _, e := range p.Models {
				patterns = append(patterns, e.Match)
			}
		}
		for _, r := range v.routes {
			patterns = append(patterns, r.Models...)
		}
		for _, i := range v.s.models.all {
			if r := &v.s.rules[i]; v.bits[r.group>>6]&(1<<(r.group&63)) != 0 {
				patterns = append(patterns, r.name)
			}
		}
		slices.SortFunc(patterns, func(a, b scope.Pattern) int { return cmp.Compare(a.String(), b.String()) })
		for i, p := range slices.Compact(patterns) {
			w := p.Text
			if p.Wild {
				w += "\x00"
			}
			d := v.couldInfer(dialect, w)
			if i == 0 || d.Effect > out[dialect].Effect {
				out[dialect] = d
			}
			if d.Effect == Allow {
				break
			}
		}
	}
	return out
}

// couldInfer is the best that a call of a model could get, whatever conditions
// say then.
func (v *View) couldInfer(dialect, model string) (d Decision) {
	var buf [32]hit
	for mode := condOpen; mode <= condAll; mode++ {
		left := false
		m := slices.DeleteFunc(v.s.models.match(buf[:0], v, model), func(h hit) bool {
			r := v.s.rule(h)
			left = left || r.when != nil && !r.shadow
			return r.when != nil && !mode.counts(r)
		})
		if next := v.verdict(m, v.builtin(dialect, model)); mode == condOpen || next.Effect > d.Effect || d.Effect == Block {
			d = next
		}
		if !left || d.Effect == Allow {
			break
		}
	}
	return d
}
