// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"github.com/cedar-policy/cedar-go"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/ringfence/ringfence/pkg/policy"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
	"github.com/ringfence/ringfence/pkg/scope"
)

// engine is one of those compared. make takes the rules once; what it returns
// prepares a request, which is not part of a decision, and decides it.
type engine struct {
	name string
	most int // rules: beyond it making or deciding takes longer than a benchmark should
	make func(rules []rule) (prepare, error)
}

// prepare brings a request into the engine's own form and returns the decision.
type prepare func(q request) func() effect

var engines = []engine{
	{"ringfence", 100000, ringfence},
	{"cedar", 100000, cedarEngine},
	{"opa", 10000, opa},
	{"cel", 10000, celEngine},
}

func ringfence(rules []rule) (prepare, error) {
	var b strings.Builder
	b.WriteString("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: peers}\nscope: org:acme\ntools:\n")
	for i, r := range rules {
		target := "server:" + r.server
		if r.tool != "" {
			target += "/tool:" + r.tool
		}
		fmt.Fprintf(&b, "  - {id: r%d, match: %q, action: %s", i, target, r.effect)
		if r.team != "" {
			fmt.Fprintf(&b, ", for: %q", "team:"+r.team)
		}
		if r.below != 0 {
			fmt.Fprintf(&b, ", when: {expression: \"args.amount < %d\"}", r.below)
		}
		b.WriteString("}\n")
	}
	docs, problems := policy.ParseWhole("peers.yaml", []byte(b.String()))
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	s, problems := policy.Compile(1, docs)
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	return func(q request) func() effect {
		v := s.View(scope.Principal{Org: "acme", Team: q.team, Agent: "bot"})
		c := policy.Call{Server: q.server, Tool: q.tool, Args: policy.NewArgs(map[string]any{"amount": int64(q.amount)})}
		return func() effect { return effect(v.Tool(&c).Effect) }
	}, nil
}

// cedarEngine: Cedar knows permit and forbid. An approval is a forbid by the
// name of its policy: of the policies that decided, the strictest counts.
func cedarEngine(rules []rule) (prepare, error) {
	set := cedar.NewPolicySet()
	of := make(map[cedar.PolicyID]effect, len(rules))
	for i, r := range rules {
		word, principal, resource := "forbid", "principal", fmt.Sprintf("resource in Server::%q", r.server)
		if r.effect == allow {
			word = "permit"
		}
		if r.team != "" {
			principal = fmt.Sprintf("principal == Team::%q", r.team)
		}
		if r.tool != "" {
			resource = fmt.Sprintf("resource == Tool::%q", r.server+"/"+r.tool)
		}
		text := fmt.Sprintf("%s (%s, action, %s)", word, principal, resource)
		if r.below != 0 {
			text += fmt.Sprintf(" when { context.amount < %d }", r.below)
		}
		var p cedar.Policy
		if err := p.UnmarshalCedar([]byte(text + ";")); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		id := cedar.PolicyID(fmt.Sprint("r", i))
		set.Add(id, &p)
		of[id] = r.effect
	}
	return func(q request) func() effect {
		tool := cedar.NewEntityUID("Tool", cedar.String(q.server+"/"+q.tool))
		entities := cedar.EntityMap{tool: cedar.Entity{UID: tool, Parents: cedar.NewEntityUIDSet(cedar.NewEntityUID("Server", cedar.String(q.server)))}}
		req := cedar.Request{Principal: cedar.NewEntityUID("Team", cedar.String(q.team)), Action: cedar.NewEntityUID("Action", "call"), Resource: tool,
			Context: cedar.NewRecord(cedar.RecordMap{"amount": cedar.Long(q.amount)})}
		return func() effect {
			decision, why := cedar.Authorize(set, entities, req)
			if decision == cedar.Allow {
				return allow
			}
			e := approval
			for _, reason := range why.Reasons {
				e = min(e, of[reason.PolicyID])
			}
			if len(why.Reasons) == 0 {
				e = block
			}
			return e
		}
	}, nil
}

// opa has a rule of Rego for each rule, whose comparisons with the input its
// rule index finds.
func opa(rules []rule) (prepare, error) {
	var b strings.Builder
	b.WriteString("package peers\n\n")
	for _, r := range rules {
		fmt.Fprintf(&b, "effects contains %d if {\n\tinput.server == %q\n", r.effect, r.server)
		if r.tool != "" {
			fmt.Fprintf(&b, "\tinput.tool == %q\n", r.tool)
		}
		if r.team != "" {
			fmt.Fprintf(&b, "\tinput.team == %q\n", r.team)
		}
		if r.below != 0 {
			fmt.Fprintf(&b, "\tinput.amount < %d\n", r.below)
		}
		b.WriteString("}\n\n")
	}
	b.WriteString("default decision := 0\n\ndecision := min(effects) if count(effects) > 0\n")
	ctx := context.Background()
	query, err := rego.New(rego.Query("x = data.peers.decision"), rego.Module("peers.rego", b.String())).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	return func(q request) func() effect {
		input := rego.EvalParsedInput(inputOf(q))
		return func() effect {
			rs, err := query.Eval(ctx, input)
			if err != nil || len(rs) != 1 {
				return block
			}
			n, ok := rs[0].Bindings["x"].(interface{ Int64() (int64, error) })
			if !ok {
				return block
			}
			v, err := n.Int64()
			if err != nil {
				return block
			}
			return effect(v)
		}
	}, nil
}

// celEngine: cel-go evaluates expressions and has no rules. Each rule is a
// program, and all are asked.
func celEngine(rules []rule) (prepare, error) {
	env, err := cel.NewEnv(cel.Variable("team", cel.StringType), cel.Variable("server", cel.StringType), cel.Variable("tool", cel.StringType), cel.Variable("amount", cel.IntType))
	if err != nil {
		return nil, err
	}
	programs := make([]cel.Program, len(rules))
	for i, r := range rules {
		text := fmt.Sprintf("server == %q", r.server)
		if r.tool != "" {
			text += fmt.Sprintf(" && tool == %q", r.tool)
		}
		if r.team != "" {
			text += fmt.Sprintf(" && team == %q", r.team)
		}
		if r.below != 0 {
			text += fmt.Sprintf(" && amount < %d", r.below)
		}
		ast, issues := env.Compile(text)
		if issues.Err() != nil {
			return nil, issues.Err()
		}
		if programs[i], err = env.Program(ast); err != nil {
			return nil, err
		}
	}
	return func(q request) func() effect {
		vars, err := cel.NewActivation(map[string]any{"team": q.team, "server": q.server, "tool": q.tool, "amount": int64(q.amount)})
		if err != nil {
			panic(err)
		}
		return func() effect {
			e, opened := allow, false
			for i, p := range programs {
				out, _, err := p.Eval(vars)
				if err != nil {
					return block
				}
				if out.Value() == true {
					e, opened = min(e, rules[i].effect), true
				}
			}
			if !opened {
				return block
			}
			return e
		}
	}, nil
}
