// SPDX-License-Identifier: Apache-2.0

// Package celexpr gives pkg/policy the expressions of conditions: CEL, by
// cel.dev/cel-go. A program that decides with policy imports it for its effect.
package celexpr

import (
	"fmt"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	"github.com/ringfence/ringfence/pkg/policy"
)

// maxCost bounds one evaluation in CEL's own measure of work; at the limit an
// expression is an error.
const maxCost = 1000

func init() { policy.RegisterExpressions(newLanguage()) }

// celTypes are CEL's types of variables.
var celTypes = map[policy.VariableType]*cel.Type{
	policy.StringVariable:  cel.StringType,
	policy.IntVariable:     cel.IntType,
	policy.TimeVariable:    cel.TimestampType,
	policy.StringsVariable: cel.ListType(cel.StringType),
	policy.NamesVariable:   cel.MapType(cel.StringType, cel.StringType),
	policy.ObjectVariable:  cel.MapType(cel.StringType, cel.DynType),
}

// language holds an environment for each section, made when it is first needed.
type language map[policy.Section]func() (*cel.Env, error)

func newLanguage() language {
	l := language{}
	for _, s := range []policy.Section{policy.SectionEgress, policy.SectionInference, policy.SectionTools} {
		l[s] = sync.OnceValues(func() (*cel.Env, error) {
			opts := []cel.EnvOption{cel.ParserExpressionSizeLimit(policy.MaxExpression), cel.ParserRecursionLimit(64)}
			for _, v := range policy.Variables(s) {
				opts = append(opts, cel.Variable(v.Name, celTypes[v.Type]))
			}
			return cel.NewEnv(opts...)
		})
	}
	return l
}

func (l language) Compile(s policy.Section, text string) (policy.Expression, error) {
	of := l[s]
	if of == nil {
		return nil, fmt.Errorf("%s rules have no expressions", s)
	}
	env, err := of()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		var errs policy.ExpressionErrors
		for _, e := range issues.Errors() {
			errs = append(errs, policy.ExpressionError{Line: e.Location.Line(), Column: e.Location.Column(), Message: e.Message})
		}
		if len(errs) == 0 {
			return nil, issues.Err()
		}
		return nil, errs
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it is a %s and must be a bool", t)
	}
	return &expression{env: env, ast: ast}, nil
}

// expression is checked; its program is made when it is first evaluated.
type expression struct {
	env     *cel.Env
	ast     *cel.Ast
	once    sync.Once
	program cel.Program
	err     error
}

func (x *expression) Names(variable string) bool {
	for _, r := range x.ast.NativeRep().ReferenceMap() {
		if r.Name == variable {
			return true
		}
	}
	return false
}

func (x *expression) Holds(facts policy.Facts) (bool, error) {
	x.once.Do(func() { x.program, x.err = x.env.Program(x.ast, cel.CostLimit(maxCost)) })
	if x.err != nil {
		return false, x.err
	}
	out, _, err := x.program.Eval(activation{facts})
	if err != nil {
		return false, err
	}
	switch out {
	case types.True:
		return true, nil
	case types.False:
		return false, nil
	}
	return false, fmt.Errorf("it is a %s and must be a bool", out.Type().TypeName())
}

// activation is facts as CEL asks for them, at one level.
type activation struct{ facts policy.Facts }

func (a activation) ResolveName(name string) (any, bool) { return a.facts.Fact(name) }
func (a activation) Parent() cel.Activation              { return nil }
