// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"

	"github.com/ringfence/ringfence/pkg/scope"
)

// When is a condition. What is given must all hold: the expression, and one of
// the windows.
type When struct {
	Expression string // CEL, "" = none
	Windows    []Window
	Request    bool // the expression names method or path, which only a request has
}

// Bounds of expressions. The cost is CEL's own measure of work; at the limit
// an expression is an error.
const (
	maxExpression = 2048
	maxCost       = 10000
)

// conditionVars are the variables of each section's expressions.
var conditionVars = map[Section][]cel.EnvOption{
	SectionEgress: {cel.Variable("host", cel.StringType), cel.Variable("port", cel.IntType),
		cel.Variable("method", cel.StringType), cel.Variable("path", cel.StringType)},
	SectionInference: {cel.Variable("model", cel.StringType), cel.Variable("dialect", cel.StringType)},
	SectionTools: {cel.Variable("server", cel.StringType), cel.Variable("tool", cel.StringType),
		cel.Variable("risk", cel.ListType(cel.StringType)), cel.Variable("args", cel.MapType(cel.StringType, cel.DynType))},
}

// variables are the names that expressions of a section may use.
func variables(s Section) []string {
	return append(strings.Fields(map[Section]string{SectionEgress: "host port method path", SectionInference: "model dialect",
		SectionTools: "server tool risk args"}[s]), "principal", "now")
}

// envs makes the environments of expressions, each when it is first needed.
type envs [SectionTools + 1]func() (*cel.Env, error)

func newEnvs() *envs {
	var e envs
	for s := range e {
		e[s] = sync.OnceValues(func() (*cel.Env, error) {
			opts := []cel.EnvOption{
				cel.Variable("principal", cel.MapType(cel.StringType, cel.StringType)), cel.Variable("now", cel.TimestampType),
				cel.ParserExpressionSizeLimit(maxExpression), cel.ParserRecursionLimit(64),
			}
			return cel.NewEnv(append(opts, conditionVars[Section(s)]...)...)
		})
	}
	return &e
}

// compile checks an expression: its variables are declared for the section and
// it can be a bool. request says that it names method or path.
func (e *envs) compile(s Section, text string) (ast *cel.Ast, request bool, issues *cel.Issues, err error) {
	env, err := e[s]()
	if err != nil {
		return nil, false, nil, err
	}
	ast, issues = env.Compile(text)
	if issues.Err() != nil {
		return nil, false, issues, issues.Err()
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, false, nil, fmt.Errorf("it is a %s and must be a bool", t)
	}
	for _, r := range ast.NativeRep().ReferenceMap() {
		request = request || r.Name == "method" || r.Name == "path"
	}
	return ast, request, nil, nil
}

// condition is a When of a snapshot.
type condition struct {
	When
	section Section
	envs    *envs
	once    sync.Once
	program cel.Program // nil when the expression does not compile: always an error
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
	var b strings.Builder
	b.WriteString(w.Expression)
	for i := range w.Windows {
		x := &w.Windows[i]
		fmt.Fprintf(&b, "\x00%d %d %d %s", x.Days, x.From, x.To, x.Zone)
	}
	key := condKey{sec, b.String()}
	c := s.conds[key]
	if c == nil {
		c = &condition{When: *w, section: sec, envs: s.envs}
		s.conds[key] = c
	}
	return c
}

// facts is what conditions look at. What is not known stays empty.
type facts struct {
	principal    *scope.Principal
	now          time.Time // zero: not known, and what asks for it is an error
	host         string
	port         uint16
	method, path string
	request      bool // method and path are known
	model        string
	dialect      string
	server, tool string
	risk         Risk
	args         Args
}

// holds decides the condition.
func (c *condition) holds(f *facts) truth {
	if len(c.Windows) > 0 {
		if f.now.IsZero() {
			return condError
		}
		in := false
		for i := range c.Windows {
			in = in || c.Windows[i].holds(f.now)
		}
		if !in {
			return condFalse
		}
	}
	if c.Expression == "" {
		return condTrue
	}
	return c.eval(*f)
}

// eval takes a copy, so that deciding without conditions allocates nothing.
func (c *condition) eval(f facts) truth {
	c.once.Do(func() {
		ast, _, _, err := c.envs.compile(c.section, c.Expression)
		if err != nil {
			return
		}
		env, err := c.envs[c.section]()
		if err != nil {
			return
		}
		if p, err := env.Program(ast, cel.CostLimit(maxCost)); err == nil {
			c.program = p
		}
	})
	if c.program == nil {
		return condError
	}
	out, _, err := c.program.Eval(&f)
	if err != nil {
		return condError
	}
	switch out {
	case types.True:
		return condTrue
	case types.False:
		return condFalse
	}
	return condError
}

// ResolveName gives a variable to an expression.
func (f *facts) ResolveName(name string) (any, bool) {
	switch name {
	case "principal":
		return map[string]string{"org": f.principal.Org, "team": f.principal.Team, "agent": f.principal.Agent, "sandbox": f.principal.Sandbox}, true
	case "now":
		return f.now, !f.now.IsZero()
	case "host":
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

// Parent is nil: there is one level of variables.
func (f *facts) Parent() cel.Activation { return nil }

// Args are the arguments of a call as expressions see them. Make them once for
// each call. The zero value is no arguments.
type Args struct{ v ref.Val }

// NewArgs takes what a JSON object decodes to: nil, bool, numbers, string,
// []any and map[string]any. It is not copied and must not change.
func NewArgs(m map[string]any) Args {
	if len(m) == 0 {
		return Args{}
	}
	return Args{types.DefaultTypeAdapter.NativeToValue(m)}
}

func (a Args) value() ref.Val {
	if a.v == nil {
		return types.DefaultTypeAdapter.NativeToValue(map[string]any{})
	}
	return a.v
}
