// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"sync/atomic"
)

// MaxExpression bounds an expression, in bytes.
const MaxExpression = 2048

// Expressions is the language of conditions. Its one implementation is
// pkg/policy/celexpr, which registers itself where it is linked, as hashes do
// with package crypto: a program that only launches need not carry and start
// the library. Where none is linked, documents with expressions are refused,
// and conditions are errors, which allow nothing.
type Expressions interface {
	// Compile checks an expression: what it names are Variables of the section,
	// and it can be a bool. Mistakes in the text are ExpressionErrors.
	Compile(s Section, text string) (Expression, error)
}

// Expression is a checked expression, for any number of goroutines.
type Expression interface {
	// Names says whether the expression names a variable.
	Names(variable string) bool
	// Holds evaluates it with a bounded cost. What is not known, is no bool or
	// costs too much is an error.
	Holds(Facts) (bool, error)
}

// Facts gives an expression its variables, in Go's types: string, int64,
// time.Time, []string, map[string]string and what JSON decodes to.
type Facts interface {
	// Fact is a variable, and whether it is known.
	Fact(name string) (any, bool)
}

// ExpressionError is one mistake in the text of an expression.
type ExpressionError struct {
	Line, Column int // the line counted from 1, the column from 0
	Message      string
}

// ExpressionErrors are the mistakes in one expression.
type ExpressionErrors []ExpressionError

func (e ExpressionErrors) Error() string {
	if len(e) == 0 {
		return "no mistake"
	}
	return e[0].Message
}

// VariableType is what a variable of expressions holds.
type VariableType uint8

// The types of variables.
const (
	StringVariable  VariableType = iota + 1
	IntVariable                  // int64
	TimeVariable                 // time.Time
	StringsVariable              // []string
	NamesVariable                // map[string]string
	ObjectVariable               // map[string]any, what a JSON object decodes to
)

// Variable is what expressions may name.
type Variable struct {
	Name string
	Type VariableType
}

// variables of each section, besides those of all.
var variables = map[Section][]Variable{
	SectionEgress:    {{"host", StringVariable}, {"port", IntVariable}, {"method", StringVariable}, {"path", StringVariable}},
	SectionInference: {{"model", StringVariable}, {"dialect", StringVariable}, {"provider", StringVariable}, {"region", StringVariable}},
	SectionTools:     {{"server", StringVariable}, {"tool", StringVariable}, {"risk", StringsVariable}, {"args", ObjectVariable}},
}

// Variables are what the expressions of a section's rules may name.
func Variables(s Section) []Variable {
	return append(append([]Variable{}, variables[s]...), Variable{"principal", NamesVariable}, Variable{"now", TimeVariable})
}

// expressions is the linked implementation, set while the program starts.
var expressions atomic.Pointer[Expressions]

// RegisterExpressions is for init functions.
func RegisterExpressions(e Expressions) { expressions.Store(&e) }

// HasExpressions says whether this program can evaluate expressions.
func HasExpressions() bool { return expressions.Load() != nil }

var errNoExpressions = errors.New("this program does not evaluate expressions")

func compileExpression(s Section, text string) (Expression, error) {
	e := expressions.Load()
	if e == nil {
		return nil, errNoExpressions
	}
	return (*e).Compile(s, text)
}
