// SPDX-License-Identifier: Apache-2.0

// Package peers decides the same requests with Ringfence's policy engine and
// with three others: cedar-go, Open Policy Agent and cel-go. It is a module of
// its own, so that none of them is a dependency of the product.
//
// What they can all express, and what is compared: one organisation; rules on
// tools by exact server, and by exact server and tool; some for one team; allow,
// block and approval, of which the strictest that matches counts; and, apart,
// one condition on an argument that every request has. Not compared, since one
// or all of the others have no such thing: layers and delegation, narrower rules
// that displace wider ones, prefixes, obligations, risk classes, windows, shadow
// rules, errors of conditions that count against the agent.
package peers

import (
	"fmt"
	"math/rand/v2"
)

// effect is a decision of any engine, the strictest first.
type effect uint8

const (
	block effect = iota
	approval
	allow
)

func (e effect) String() string { return [...]string{"block", "require-approval", "allow"}[e] }

// rule is one rule of the subset. An empty team or tool is any. Allows are for
// all tools of a server; the others for one tool and every team, so that no
// narrower rule is looser than a wider one.
type rule struct {
	effect       effect
	team         string
	server, tool string
	below        int // with a condition: the amount is below this; 0 = none
}

// request is one call of a tool.
type request struct {
	team, server, tool string
	amount             int
}

const (
	teams     = 20
	toolsEach = 10 // tools of a server
)

// makeRules makes n rules: in ten about five allows, three approvals and two
// blocks, over n/10 servers.
func makeRules(n int, conditions bool) []rule {
	g := rand.New(rand.NewPCG(uint64(n), 7))
	servers := max(1, n/10)
	seen := map[rule]bool{}
	var out []rule
	for len(out) < n {
		r := rule{server: fmt.Sprint("s", g.IntN(servers)), tool: fmt.Sprint("t", g.IntN(toolsEach))}
		switch g.IntN(10) {
		case 0, 1, 2, 3, 4:
			r.effect, r.tool = allow, ""
			if g.IntN(4) != 0 {
				r.team = fmt.Sprint("team", g.IntN(teams))
			}
			if conditions {
				r.below = 20 + 20*g.IntN(5)
			}
		case 5, 6, 7:
			r.effect = approval
		}
		if !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

// makeRequests makes 256 requests of which each effect has at least a tenth.
func makeRequests(n int, decide func(request) effect) ([]request, map[effect]int, error) {
	g := rand.New(rand.NewPCG(uint64(n), 8))
	servers := max(1, n/10)
	const all = 256
	count := map[effect]int{}
	var out []request
	for try := 0; len(out) < all; try++ {
		q := request{team: fmt.Sprint("team", g.IntN(teams)), server: fmt.Sprint("s", g.IntN(servers)), tool: fmt.Sprint("t", g.IntN(toolsEach)), amount: g.IntN(120)}
		e := decide(q)
		if count[e] >= all*2/5 && try < 100000 { // the mix is made even
			continue
		}
		count[e]++
		out = append(out, q)
	}
	for _, e := range []effect{block, approval, allow} {
		if count[e]*10 < all {
			return nil, nil, fmt.Errorf("of %d requests %d get %s: less than a tenth", all, count[e], e)
		}
	}
	return out, count, nil
}

// naive decides as the subset is described.
func naive(rules []rule, q request) effect {
	e, opened := allow, false
	for _, r := range rules {
		if r.server != q.server || r.tool != "" && r.tool != q.tool || r.team != "" && r.team != q.team || r.below != 0 && q.amount >= r.below {
			continue
		}
		opened = true
		e = min(e, r.effect)
	}
	if !opened {
		return block
	}
	return e
}
