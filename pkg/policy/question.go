// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/scope"
)

// EgressQuestion asks for a connection to "HOST:PORT", or datagrams to
// "HOST:PORT/udp"; with a request such as "GET /repos/a/b" for that on it. In
// errors what to write instead stands behind a semicolon.
func EgressQuestion(target, request string) (Question, error) {
	t, err := ParseTarget(target)
	switch {
	case err != nil:
		return Question{}, err
	case t.Port == 0:
		return Question{}, fmt.Errorf("a question names its port: %s has none; for example %q", quote(target), target+":443")
	case t.Prefix.IsValid() && !t.Prefix.IsSingleIP() || !t.Prefix.IsValid() && t.Host.Kind != HostExact:
		return Question{}, fmt.Errorf("%s stands for many; ask about one host or address", quote(target))
	}
	q := Question{Section: SectionEgress, Host: t.Host.Name, Port: t.Port, Proto: t.Proto}
	if t.Prefix.IsValid() {
		q.Host = t.Prefix.Addr().String()
	}
	if request == "" {
		return q, nil
	}
	method, path, ok := strings.Cut(request, " ")
	if _, err := parseMethod(method); err != nil || !ok || !strings.HasPrefix(path, "/") {
		return Question{}, fmt.Errorf("request %s is not METHOD /path; for example GET /repos/a/b", quote(request))
	}
	if q.Proto == UDP {
		return Question{}, fmt.Errorf("a request on datagrams")
	}
	q.Method, q.Path = method, path
	return q, nil
}

// ModelQuestion asks for a call of a model in a dialect; "" is openai.
func ModelQuestion(model, dialect string) (Question, error) {
	if dialect == "" {
		dialect = DialectOpenAI
	}
	if !builtDialect(dialect) {
		return Question{}, fmt.Errorf("unknown dialect %s; %s", quote(dialect), didYouMean(dialect, Dialects()))
	}
	if model == "" {
		return Question{}, fmt.Errorf("no model is named")
	}
	return Question{Section: SectionInference, Dialect: dialect, Model: model}, nil
}

// ToolQuestion asks for a call of "SERVER/TOOL".
func ToolQuestion(name string) (Question, error) {
	server, tool, ok := strings.Cut(name, "/")
	if !ok || server == "" || tool == "" {
		return Question{}, fmt.Errorf("tool %s is not SERVER/TOOL; for example %s/web_search", quote(name), scope.ServerProvider)
	}
	return Question{Section: SectionTools, Server: server, Tool: tool}, nil
}

// Ask decides a question, as the method of its section does.
func (v *View) Ask(q *Question) Decision {
	switch q.Section {
	case SectionInference:
		d, _ := v.Answered(q.Dialect, q.Model)
		return d
	case SectionTools:
		c := q.call()
		return v.Tool(&c)
	}
	if a, err := netip.ParseAddr(q.Host); err == nil {
		return v.Addr(a, q.Port, q.proto())
	}
	switch {
	case q.Method != "":
		return v.HTTP(q.Host, q.Port, q.Method, q.Path)
	case q.proto() == UDP:
		return v.Datagrams(q.Host, q.Port)
	}
	return v.Egress(q.Host, q.Port)
}

// Dials says whether a connection to a name that is let pass may go to an
// address, as the gateway judges it: addresses that are not public are refused
// unless admitted, and those that an address rule refuses.
func (v *View) Dials(q *Question, a netip.Addr) bool {
	if _, denied := v.AddrDenied(a, q.proto(), q.Port); denied {
		return false
	}
	_, private := SpecialPurpose(a)
	return !private || slices.ContainsFunc(v.ResolvesTo(q.Host, q.Port, q.proto()), func(p netip.Prefix) bool { return p.Contains(a) })
}

// String is the question for people: "GET /a on x.org:443", "model gpt-5".
func (q *Question) String() string {
	switch q.Section {
	case SectionInference:
		return fmt.Sprintf("model %s (%s)", q.Model, q.Dialect)
	case SectionTools:
		c := q.call()
		if c.Risk == 0 { // as documents classify it
			return fmt.Sprintf("tool %s/%s", c.Server, c.Tool)
		}
		return fmt.Sprintf("tool %s/%s, risk %s", c.Server, c.Tool, c.Risk)
	}
	t := Target{Host: HostPattern{HostExact, q.Host}, Port: q.Port}
	if a, err := netip.ParseAddr(q.Host); err == nil {
		t.Host, t.Prefix = HostPattern{}, netip.PrefixFrom(a, a.BitLen())
	}
	if q.Proto == UDP {
		t.Proto = UDP
	}
	if q.Method != "" {
		return fmt.Sprintf("%s %s on %s", q.Method, q.Path, t)
	}
	return t.String()
}
