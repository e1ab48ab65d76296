// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

func TestGoldenTable(t *testing.T) {
	data, err := os.ReadFile("testdata/golden.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Docs string
		Ask        []string
	}
	if err := yaml.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	who := map[string]scope.Principal{
		"bot": {Org: "acme", Team: "eng", Agent: "bot", Sandbox: "s1"},
		"ops": {Org: "acme", Team: "ops", Agent: "cat"},
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			docs, problems := Parse("golden.yaml", []byte(c.Docs))
			if len(problems) > 0 {
				t.Fatal(Problems(problems))
			}
			s := compileAll(t, docs)
			for _, line := range c.Ask {
				as, rest, _ := strings.Cut(line, ": ")
				question, want, ok := strings.Cut(rest, " -> ")
				p, known := who[as]
				if !ok || !known {
					t.Fatalf("malformed line %q", line)
				}
				d := askGolden(t, s.View(p), strings.Fields(question))
				checkGolden(t, line, d, strings.Fields(want))
			}
		})
	}
}

func askGolden(t *testing.T, v *View, q []string) Decision {
	t.Helper()
	hostPort := func(s string) (string, uint16) {
		i := strings.LastIndexByte(s, ':')
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		return s[:i], uint16(n)
	}
	switch q[0] {
	case "egress":
		h, p := hostPort(q[1])
		return v.Egress(h, p)
	case "udp":
		h, p := hostPort(q[1])
		return v.Datagrams(h, p)
	case "opaque":
		h, p := hostPort(q[1])
		return v.Opaque(h, p)
	case "http":
		hp, path, _ := strings.Cut(q[2], "/")
		h, p := hostPort(hp)
		return v.HTTP(h, p, q[1], "/"+path)
	case "name":
		return v.Name(q[1]).Decision
	case "addr":
		port, err := strconv.ParseUint(q[2], 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		proto := TCP
		if len(q) > 3 {
			proto = UDP
		}
		return v.Addr(netip.MustParseAddr(q[1]), uint16(port), proto)
	case "model":
		return v.Inference(q[1], q[2])
	case "tool":
		return v.ProviderTool(q[1])
	}
	t.Fatalf("unknown question %v", q)
	return Decision{}
}

func checkGolden(t *testing.T, line string, d Decision, want []string) {
	t.Helper()
	got := "block"
	if d.Allowed() {
		got = "allow"
		if d.HTTP {
			got = "http"
		}
	}
	if got != want[0] {
		t.Errorf("%s\n\tgot %s by %q (%s)", line, got, d.Rule, d.ReasonCode)
	}
	if d.Reason == "" || d.ReasonCode == "" || d.Revision != 7 {
		t.Errorf("%s\n\tno reason, code or revision: %+v", line, d)
	}
	for i := 1; i+1 < len(want); i += 2 {
		switch want[i] {
		case "by":
			if d.Rule.String() != want[i+1] {
				t.Errorf("%s\n\tdecided by %q", line, d.Rule)
			}
		case "code":
			if d.ReasonCode != want[i+1] || want[i+1] == CodeNoRule && d.Rule != (RuleRef{}) {
				t.Errorf("%s\n\tcode %q, rule %q", line, d.ReasonCode, d.Rule)
			}
		default:
			t.Errorf("%s: malformed", line)
		}
	}
}
