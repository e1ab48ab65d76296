// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
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
		return Question{}, fmt.Errorf("unknown dialect %s; %s", quote(dialect), didYouMean(dialect, []string{DialectOpenAI, DialectAnthropic}))
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
