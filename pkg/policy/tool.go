// SPDX-License-Identifier: Apache-2.0

package policy

import "time"

// Call is a call of a tool.
type Call struct {
	Server, Tool string
	Risk         Risk // 0 = as the server's document says, else nobody classified it
	Args         Args
	Now          time.Time // zero: the view's, see View.At
}

// Tool decides a call of a tool on any server.
func (v *View) Tool(c *Call) Decision {
	var buf [32]hit
	return v.verdict(v.callRules(buf[:0], c), noRule)
}

// callRules appends the rules that match a call.
func (v *View) callRules(m []hit, c *Call) []hit {
	m = v.s.tools.match(m, v, c.Server, c.Tool)
	if v.unconditional(m) {
		return m
	}
	f := facts{principal: &v.p, now: c.Now, clock: v.clock, server: c.Server, tool: c.Tool, risk: c.Risk, args: c.Args}
	if f.risk == 0 {
		f.risk = v.classes(c.Server, c.Tool)
	}
	if f.now.IsZero() {
		f.now = v.now
	}
	return v.judge(m, &f)
}

// unconditional says that no rule of m depends on risk or a condition.
func (v *View) unconditional(m []hit) bool {
	for _, h := range m {
		if r := v.s.rule(h); r.risk != 0 || r.when != nil {
			return false
		}
	}
	return true
}

// judge keeps the rules of m whose risk and condition let them count, and marks
// those that are unsure.
func (v *View) judge(m []hit, f *facts) []hit {
	f.crowded = v.crowded(m)
	k := 0
	for _, h := range m {
		r := v.s.rule(h)
		if r.risk != 0 || r.when != nil {
			some, sure := r.risk.covers(f.risk)
			if !some {
				continue
			}
			if r.when != nil {
				switch r.when.holds(f) {
				case condFalse:
					continue
				case condError:
					sure = false
				}
			}
			if !sure {
				var counts bool
				if h, counts = r.unsure(h); !counts {
					continue
				}
			}
		}
		m[k] = h
		k++
	}
	return m[:k]
}
