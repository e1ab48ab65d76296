// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Dialects that are built.
const (
	DialectOpenAI    = "openai"
	DialectAnthropic = "anthropic"
)

// Credential modes of a provider.
const (
	CredentialInject      = "inject"      // the provider's secret replaces what the agent sent
	CredentialPassthrough = "passthrough" // the agent's own credential is forwarded
)

// Provider is one upstream of model calls.
type Provider struct {
	Name           string
	Scope          scope.Selector // principals that may use it
	Dialect        string         // DialectOpenAI or DialectAnthropic
	BaseURL        string         // scheme://host[:port][/path], no trailing slash, no query
	Secret         string         // name in the secrets directory; "" only with passthrough
	Credential     string         // CredentialInject or CredentialPassthrough
	Models         []ModelEntry   // empty = every model under its own name
	ResolvesTo     []netip.Prefix // private prefixes that the base URL's host may resolve to
	AllowPlaintext bool           // http:// to a host that is not a loopback literal

	File string
	Line int
}

// ModelEntry admits the models of Match and names them upstream.
type ModelEntry struct {
	Match    scope.Pattern
	Upstream string // "" = the name the agent used
}

// Model finds the entry of a model: the exact one, else the longest prefix.
// upstream is the name to send; ok is false when no entry covers the model
// (upstream is then the model itself). Without entries every model is covered.
func (p *Provider) Model(model string) (upstream string, ok bool) {
	if len(p.Models) == 0 {
		return model, true
	}
	best := -1
	for i := range p.Models {
		m := &p.Models[i]
		if m.Match.Matches(model) && (best < 0 || p.Models[best].Match.Contains(m.Match)) {
			best = i
		}
	}
	if best < 0 {
		return model, false
	}
	if u := p.Models[best].Upstream; u != "" {
		return u, true
	}
	return model, true
}
