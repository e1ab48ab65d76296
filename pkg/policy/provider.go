// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/scope"
)

// Dialects that are built.
const (
	DialectOpenAI    = "openai"
	DialectAnthropic = "anthropic"
	DialectGemini    = "gemini"
)

// dialectHosts are the built dialects, each with the host at which agents address
// it where nothing else is said.
var dialectHosts = []struct{ dialect, host string }{
	{DialectOpenAI, "api.openai.com"},
	{DialectAnthropic, "api.anthropic.com"},
	{DialectGemini, "generativelanguage.googleapis.com"},
}

// Dialects are the names of those that are built.
func Dialects() (names []string) {
	for _, d := range dialectHosts {
		names = append(names, d.dialect)
	}
	return names
}

func builtDialect(name string) bool {
	for i := range dialectHosts {
		if dialectHosts[i].dialect == name {
			return true
		}
	}
	return false
}

// mainHost is where agents address a dialect.
func mainHost(dialect string) string {
	for _, d := range dialectHosts {
		if d.dialect == dialect {
			return d.host
		}
	}
	return ""
}

// Credential modes of a provider.
const (
	CredentialInject      = "inject"      // the provider's key replaces what the agent sent
	CredentialPassthrough = "passthrough" // the agent's own credential is forwarded
)

// Provider is one upstream of model calls.
type Provider struct {
	Name           string
	Scope          scope.Selector // principals that may use it
	Dialect        string         // one of Dialects
	Platform       string         // how it is addressed; "" = as the dialect's own API
	BaseURL        string         // scheme://host[:port][/path], no trailing slash, no query
	Hosts          []string       // where agents address it; see At
	Region         string         // for rules and routes; "" = not said
	Weight         uint32         // its share beside others, 1 or more
	Keys           []Key          // empty only with passthrough
	Credential     string         // CredentialInject or CredentialPassthrough
	Models         []ModelEntry   // empty = every model under its own name
	UnknownPrice   UnknownPrice   // what a call costs where no price is known
	Timeouts       Timeouts
	ResolvesTo     []netip.Prefix // private prefixes that the base URL's host may resolve to
	AllowPlaintext bool           // http:// to a host that is not a loopback literal

	File string
	Line int
}

// Key is one of a provider's keys.
type Key struct {
	Secret string // name in the secrets directory
	Weight uint32 // its share of the calls, 1 or more
}

// Timeouts bound one attempt at a provider; 0 = the gateway's own.
type Timeouts struct {
	FirstByte time.Duration // until the head of the answer
	Idle      time.Duration // between two pieces of it
	Total     time.Duration // the whole answer
}

// UnknownPrice is what happens with a call whose price nobody knows. It is never
// taken to be nothing. The zero value refuses where a hard budget counts it.
type UnknownPrice uint8

// What can be said of unknown prices.
const (
	UnknownPriceDeny     UnknownPrice = iota // the call is refused
	UnknownPriceEstimate                     // the dearest known price of the provider's models counts
	UnknownPriceFlag                         // the call goes through and its record says that its cost is not known
)

var unknownPrices = []string{"deny", "estimate", "flag"}

// String is the word of documents.
func (u UnknownPrice) String() string {
	if int(u) < len(unknownPrices) {
		return unknownPrices[u]
	}
	return unknownPrices[UnknownPriceDeny]
}

// Features are what a model can do beyond text.
type Features uint8

// Features of models.
const (
	FeatureTools Features = 1 << iota
	FeatureVision
	FeatureStructured
	FeatureReasoning
)

var featureNames = []string{"tools", "vision", "structured", "reasoning"}

// Names are the features as documents have them.
func (f Features) Names() (out []string) {
	for i, n := range featureNames {
		if f&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// ModelEntry admits the models of Match and names them upstream.
type ModelEntry struct {
	Match    scope.Pattern
	Upstream string // "" = the name the agent used

	Context   uint32   // tokens that go in and come out together; 0 = not said
	MaxOutput uint32   // tokens that may come out; 0 = not said
	Features  Features // with Declared
	Declared  bool     // Features says what it can do; otherwise nobody knows, and nothing is refused for it
}

// Entry finds the entry of a model: the exact one, else the longest prefix; nil
// when none covers it.
func (p *Provider) Entry(model string) *ModelEntry {
	best := -1
	for i := range p.Models {
		m := &p.Models[i]
		if m.Match.Matches(model) && (best < 0 || p.Models[best].Match.Contains(m.Match)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return &p.Models[best]
}

// Model is the name to send for a model; ok is false when no entry covers it
// (upstream is then the model itself). Without entries every model is covered.
func (p *Provider) Model(model string) (upstream string, ok bool) {
	if len(p.Models) == 0 {
		return model, true
	}
	switch e := p.Entry(model); {
	case e == nil:
		return model, false
	case e.Upstream != "":
		return e.Upstream, true
	}
	return model, true
}

// At says whether agents reach the provider at a canonical host: one that its
// document names, or, where it names none, its dialect's own host. The host of its
// base URL counts in both cases.
func (p *Provider) At(host string) bool {
	if len(p.Hosts) > 0 && slices.Contains(p.Hosts, host) || len(p.Hosts) == 0 && host == mainHost(p.Dialect) {
		return true
	}
	base, _, _ := p.endpoint() // last, for it takes the URL apart
	return base == host && base != ""
}

// Secrets are the names of its keys.
func (p *Provider) Secrets() (names []string) {
	for i := range p.Keys {
		names = append(names, p.Keys[i].Secret)
	}
	return names
}
