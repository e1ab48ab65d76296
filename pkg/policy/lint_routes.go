// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
)

// leadNowhere are targets of routes at which nobody is: no provider has the name, or
// the one that has it does not have the model.
func (s *Snapshot) leadNowhere() (out []Finding) {
	for i := range s.routes {
		r := &s.routes[i]
		for _, t := range r.Targets() {
			if t.Provider == "" {
				continue
			}
			f := Finding{Kind: LintUnreachable, Doc: r.Doc, File: r.File, Line: r.Line, Col: 1, Rule: RuleRef{Doc: r.Doc, ID: r.ID, File: r.File, Line: r.Line, Scope: r.Scope.String()}}
			at := slices.IndexFunc(s.providers, func(p Provider) bool { return p.Name == t.Provider })
			if at < 0 {
				names := make([]string, len(s.providers))
				for j := range s.providers {
					names[j] = s.providers[j].Name
				}
				f.Why = fmt.Sprintf("the route %s leads to the provider %s, and none of these documents is of that name", r.ID, quote(t.Provider))
				f.Do = cmp.Or(didYouMean(t.Provider, names), "write a Provider document of that name")
				out = append(out, f)
				continue
			}
			if _, has := s.providers[at].Model(t.Model); t.Model != "" && !has {
				f.Why = fmt.Sprintf("the route %s leads to the model %s, which the provider %s does not list", r.ID, quote(t.Model), t.Provider)
				f.Do = "add the model to the provider's document"
				out = append(out, f)
			}
		}
	}
	return out
}
