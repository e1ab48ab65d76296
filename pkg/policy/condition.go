// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// When is a condition. What is given must all hold: the expression, and one of
// the windows.
type When struct {
	Expression string // CEL, "" = none
	Windows    []Window
	Request    bool // the expression names method or path, which only a request has
	Clock      bool // the expression names now
}

// condition is a When of a snapshot.
type condition struct {
	When
	section Section
	once    sync.Once
	program Expression // nil when the expression does not compile: always an error
	assumed *truth     // of a proof: what the condition is taken to be
}

type condKey struct {
	section Section
	text    string
}

// condition interns: equal conditions of a section are one.
func (s *Snapshot) condition(sec Section, w *When) *condition {
	if w == nil {
		return nil
	}
	key := condKey{sec, w.text()}
	c := s.conds[key]
	if c == nil {
		c = &condition{When: *w, section: sec}
		s.conds[key] = c
	}
	return c
}

// text is equal for equal conditions.
func (w *When) text() string {
	var b strings.Builder
	b.WriteString(w.Expression)
	for i := range w.Windows {
		x := &w.Windows[i]
		fmt.Fprintf(&b, "\x00%d %d %d %s", x.Days, x.From, x.To, x.Zone)
	}
	return b.String()
}

// maxConditions bounds the rules with an expression that speak of one host, model
// or tool for one principal: who writes documents must not decide how long a
// decision takes. With more, each of their expressions is an error, whatever the
// order of rules, so that they allow nothing and what restricts holds.
const maxConditions = 32

// crowded says whether more than that are in m.
func (v *View) crowded(m []hit) bool {
	if len(m) <= maxConditions {
		return false
	}
	n := 0
	for _, h := range m {
		if w := v.s.rule(h).when; w != nil && w.Expression != "" {
			n++
		}
	}
	return n > maxConditions
}

// facts is what conditions look at. What is not known stays empty.
type facts struct {
	principal    *scope.Principal
	now          time.Time        // zero: not known, and what asks for it is an error
	clock        func() time.Time // tells now when it is first asked for; may be nil
	ahead        bool             // see View.Ahead
	opaque       bool             // of a connection into which nobody looks
	crowded      bool             // see maxConditions
	host         string
	addr         netip.Addr // instead of host
	port         uint16
	method, path string
	request      bool // method and path are known
	model        string
	dialect      string
	provider     *Provider // who would answer; nil: not known yet
	server, tool string
	risk         Risk
	args         Args
}

// time is when the decision is made; the zero value when that is not known.
func (f *facts) time() time.Time {
	if f.now.IsZero() && f.clock != nil {
		f.now = f.clock()
	}
	return f.now
}

// holds decides the condition.
func (c *condition) holds(f *facts) truth {
	if c.assumed != nil {
		return *c.assumed
	}
	t := c.inWindow(f)
	if t != condTrue || c.Expression == "" {
		return t
	}
	if f.crowded {
		return condError
	}
	return c.eval(*f)
}

// known decides as much of the condition as can be told without a request.
func (c *condition) known(f *facts) truth {
	if c.Request {
		return c.inWindow(f)
	}
	return c.holds(f)
}

func (c *condition) inWindow(f *facts) truth {
	if len(c.Windows) == 0 {
		return condTrue
	}
	if c.assumed != nil {
		return *c.assumed
	}
	now := f.time()
	if now.IsZero() {
		return condError
	}
	for i := range c.Windows {
		if c.Windows[i].holds(now) {
			return condTrue
		}
	}
	return condFalse
}

// eval takes a copy, so that deciding without conditions allocates nothing.
func (c *condition) eval(f facts) truth {
	x := c.compiled()
	if x == nil {
		return condError
	}
	switch holds, err := x.Holds(&f); {
	case err != nil:
		return condError
	case holds:
		return condTrue
	}
	return condFalse
}

// compiled is the expression, nil when it does not compile.
func (c *condition) compiled() Expression {
	c.once.Do(func() {
		if x, err := compileExpression(c.section, c.Expression); err == nil {
			c.program = x
		}
	})
	return c.program
}

// names says whether what the condition is depends on a variable.
func (c *condition) names(variable string) bool {
	x := c.compiled()
	return x != nil && x.Names(variable)
}

// Fact gives a variable to an expression.
func (f *facts) Fact(name string) (any, bool) {
	switch name {
	case "principal":
		return map[string]string{"org": f.principal.Org, "team": f.principal.Team, "agent": f.principal.Agent, "sandbox": f.principal.Sandbox}, true
	case "now":
		now := f.time()
		return now, !now.IsZero()
	case "host":
		if f.addr.IsValid() {
			return f.addr.String(), true
		}
		return f.host, true
	case "port":
		return int64(f.port), true
	case "method":
		return f.method, f.request
	case "path":
		return f.path, f.request
	case "model":
		return f.model, true
	case "dialect":
		return f.dialect, true
	case "provider", "region":
		if f.provider == nil {
			return nil, false
		}
		if name == "region" {
			return f.provider.Region, true
		}
		return f.provider.Name, true
	case "server":
		return f.server, true
	case "tool":
		return f.tool, true
	case "risk":
		return f.risk.classified().Names(), true
	case "args":
		return f.args.value(), true
	}
	return nil, false
}

// Args are the arguments of a call as expressions see them. The zero value is
// no arguments.
type Args struct{ v map[string]any }

// NewArgs takes what a JSON object decodes to: nil, bool, numbers, string,
// []any and map[string]any. It is not copied and must not change.
func NewArgs(m map[string]any) Args { return Args{m} }

func (a Args) value() map[string]any {
	if a.v == nil {
		return map[string]any{}
	}
	return a.v
}
