// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"
)

// An allow that cannot be decided is told as what it is: it matches, opens
// nothing, and obliges.
func TestAnUnsureAllowIsExplained(t *testing.T) {
	s := algCompile(t, head+`tools:
  - {id: pay, match: "server:bank/tool:pay", action: allow, when: {expression: "args.amount < 100"}, rate: {requests: 1/m}}
  - {id: read, match: "server:crm", action: allow, risk: [read], audit: full}
`)
	v := s.View(bot)
	for name, q := range map[string]Question{
		"acme/pay":  {Section: SectionTools, Server: "bank", Tool: "pay"},
		"acme/read": {Section: SectionTools, Server: "crm", Tool: "get", Risk: RiskRead | RiskExec},
	} {
		x := v.Explain(q)
		if x.Decision.Effect != Block || x.Decision.ReasonCode != CodeNoRule || len(x.Decision.Obligations()) != 1 {
			t.Errorf("%s: %+v", name, x.Decision)
		}
		if len(x.Candidates) != 1 || x.Candidates[0].Won || !x.Candidates[0].Matched || !strings.Contains(x.Candidates[0].Why, "its obligations hold") {
			t.Errorf("%s: %+v", name, x.Candidates)
		}
	}
	sure := v.Explain(Question{Section: SectionTools, Server: "bank", Tool: "pay", Args: NewArgs(map[string]any{"amount": 1})})
	if !sure.Decision.Allowed() || !sure.Candidates[0].Won {
		t.Errorf("%+v", sure)
	}
}
