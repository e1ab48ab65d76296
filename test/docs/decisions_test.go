// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// decisions asks the documents of the block before. A line is
//
//	PRINCIPAL  tool SERVER/TOOL [RISK,...] [{arguments}] | egress HOST:PORT | model NAME  [at TIME]  =>  the decision
//
// with the decision as effect, rule and what comes with it.
func (p *page) decisions(b *block) {
	p.t.Helper()
	if p.snap == nil {
		p.t.Errorf("%s: no documents before it", b.at())
		return
	}
	for i, line := range b.body {
		ask, want, ok := strings.Cut(line, " => ")
		if !ok {
			p.t.Errorf("%s: line %d has no =>", b.at(), i+1)
			continue
		}
		got, err := decision(p.snap, strings.Fields(ask))
		if want = strings.Join(strings.Fields(want), " "); err != nil || got != want {
			p.t.Errorf("%s: %s\n\tsays %q\n\tis   %q %v", b.at(), ask, want, got, err)
		}
	}
}

func decision(s *policy.Snapshot, words []string) (string, error) {
	if len(words) < 3 {
		return "", fmt.Errorf("too few words: %q", words)
	}
	who, err := scope.ParsePrincipal(words[0])
	if err != nil {
		return "", err
	}
	v := s.View(who)
	rest := words[3:]
	if n := len(rest); n >= 2 && rest[n-2] == "at" {
		at, err := time.Parse(time.RFC3339, rest[n-1])
		if err != nil {
			return "", err
		}
		v, rest = v.At(at), rest[:n-2]
	}
	var d policy.Decision
	switch words[1] {
	case "egress":
		host, port, err := net.SplitHostPort(words[2])
		if err != nil {
			return "", err
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", err
		}
		d = v.Egress(host, uint16(n))
	case "model":
		d = v.Inference(policy.DialectAnthropic, words[2])
	case "tool":
		c, err := call(words[2], rest)
		if err != nil {
			return "", err
		}
		d = v.Tool(&c)
	default:
		return "", fmt.Errorf("unknown question %q", words[1])
	}
	return inWords(d), nil
}

func call(target string, rest []string) (c policy.Call, err error) {
	c.Server, c.Tool, _ = strings.Cut(target, "/")
	for _, w := range rest {
		if strings.HasPrefix(w, "{") {
			var args map[string]any
			if err := json.Unmarshal([]byte(w), &args); err != nil {
				return c, err
			}
			c.Args = policy.NewArgs(args)
			continue
		}
		for _, name := range strings.Split(w, ",") {
			r, err := policy.ParseRisk(name)
			if err != nil {
				return c, err
			}
			c.Risk |= r
		}
	}
	return c, nil
}

func inWords(d policy.Decision) string {
	out := d.Effect.String()
	if r := d.Rule.String(); r != "" {
		out += " by " + r
	}
	for _, o := range d.Obligations() {
		out += ", " + o.Kind.String() + " of " + o.Rule.String()
	}
	if s := d.Shadow(); s != nil && (s.Effect != d.Effect || s.Rule != d.Rule) {
		out += "; with shadow rules " + inWords(*s)
	}
	return out
}
