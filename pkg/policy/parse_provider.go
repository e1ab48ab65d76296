// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func (d *decoder) provider(m fieldMap, doc *Document) *Provider {
	p := &Provider{Name: doc.Name, Scope: doc.Scope, Credential: CredentialInject, Weight: 1, File: doc.File, Line: doc.Line}
	d.providerDialect(m, p)
	p.AllowPlaintext = d.boolean(m.get("allowPlaintext"), "allowPlaintext")
	if n := m.get("baseURL"); n != nil {
		if s, ok := d.str(n, "baseURL"); ok {
			base, err := parseURL("baseURL", s, "prompts and the key", p.AllowPlaintext)
			if err != nil {
				d.failText(n, err)
			}
			p.BaseURL = base
		}
	}
	if n := m.get("credential"); n != nil {
		if s, ok := d.str(n, "credential"); ok {
			if s != CredentialInject && s != CredentialPassthrough {
				d.fail(n, didYouMean(s, []string{CredentialInject, CredentialPassthrough}), "unknown credential mode %s", quote(s))
			}
			p.Credential = s
		}
	}
	d.providerKeys(m, p)
	d.providerRouting(m, p)
	d.list(m.get("models"), "models", func(n *yaml.Node) { d.modelEntry(n, p) })
	if n := m.get("models"); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "leave it out to configure every model", "models is an empty list")
	}
	if n := m.get("resolvesTo"); n != nil {
		p.ResolvesTo = d.prefixes(n, "resolvesTo")
	}
	d.platformNeeds(m, p)
	return p
}

// providerDialect reads how the provider speaks and how it is addressed.
func (d *decoder) providerDialect(m fieldMap, p *Provider) {
	if n := m.get("dialect"); n != nil {
		if s, ok := d.str(n, "dialect"); ok {
			switch {
			case builtDialect(s):
				p.Dialect = s
			case slices.Contains(otherDialects, s):
				d.fail(n, "built are: "+strings.Join(Dialects(), ", "), "dialect %q is not built in this version", s)
			default:
				d.fail(n, didYouMean(s, Dialects()), "unknown dialect %s", quote(s))
			}
		}
	}
	if n := m.get("platform"); n != nil {
		if s, ok := d.str(n, "platform"); ok {
			p.Platform = d.platform(n, p.Dialect, s)
		}
	}
}

// platform reads how a provider of a dialect is addressed.
func (d *decoder) platform(n *yaml.Node, dialect, s string) string {
	i := slices.IndexFunc(platforms, func(p platform) bool { return p.name == s })
	switch {
	case i < 0:
		d.fail(n, "built are: "+strings.Join(Platforms(), ", ")+"; leave it out for the dialect's own API and for what is compatible with it", "platform %s is not built in this version", quote(s))
	case dialect == "": // has its own error
	case !slices.Contains(platforms[i].dialects, dialect):
		d.fail(n, "it is built for: "+strings.Join(platforms[i].dialects, ", "), "platform %s is not built in this version for the dialect %s", s, dialect)
	default:
		return s
	}
	return ""
}

// platformNeeds checks what a platform needs of the rest of the document.
func (d *decoder) platformNeeds(m fieldMap, p *Provider) {
	i := slices.IndexFunc(platforms, func(f platform) bool { return f.name == p.Platform })
	if p.Platform == "" || i < 0 {
		return
	}
	f := &platforms[i]
	if p.Credential == CredentialPassthrough {
		d.fail(m.key["credential"], "store its key, and leave credential out", "an agent has no credential of the platform %s to pass on", f.name)
	}
	if p.BaseURL == "" { // has its own error
		return
	}
	u, err := url.Parse(p.BaseURL)
	if err == nil && !f.path.MatchString(u.EscapedPath()) {
		d.fail(m.get("baseURL"), "write it as "+f.base, "baseURL %s is not one of the platform %s", quote(p.BaseURL), f.name)
	}
	if err == nil && f.name == PlatformBedrock && !awsHost.MatchString(u.Hostname()) && p.Region == "" {
		d.fail(m.get("baseURL"), "add region: REGION, as Amazon calls it", "the host of baseURL does not name a region, which calls are signed for")
	}
}

// otherDialects are words that people try.
var otherDialects = []string{"google", "vertex", "bedrock", "azure", "azure-openai", "cohere", "mistral", "ollama"}

// providerRouting reads what routes look at.
func (d *decoder) providerRouting(m fieldMap, p *Provider) {
	p.Hosts = d.strs(m.get("hosts"), "hosts", documentHost)
	for _, h := range p.Hosts {
		there := speaks(h)
		if e, ok := providerHostNamed(HostPattern{HostExact, h}); ok && e.Dialect != "" {
			there = e.Dialect
		}
		if there != "" && p.Dialect != "" && there != p.Dialect {
			d.fail(m.key["hosts"], "", "agents speak the dialect %s at %s, and this provider %s", there, h, p.Dialect)
		}
	}
	p.Region = d.name(m.get("region"), "region")
	if n := m.get("weight"); n != nil {
		p.Weight = uint32(d.number(n, "weight", 1, maxWeight))
	}
	if n := m.get("unknownPrice"); n != nil {
		p.UnknownPrice = UnknownPrice(d.word(n, "unknownPrice", unknownPrices))
	}
	if n := m.get("timeouts"); n != nil {
		d.sub(n, objTimeouts, func(m fieldMap) {
			for name, dst := range map[string]*time.Duration{"firstByte": &p.Timeouts.FirstByte, "idle": &p.Timeouts.Idle, "total": &p.Timeouts.Total} {
				if n := m.get(name); n != nil {
					*dst = d.duration(n, name, 100*time.Millisecond, 24*time.Hour)
				}
			}
		})
	}
}

// maxKeys bounds the keys of a provider.
const maxKeys = 64

// providerKeys reads "secret", or "keys" where there are several.
func (d *decoder) providerKeys(m fieldMap, p *Provider) {
	one, many := m.get("secret"), m.get("keys")
	switch {
	case one == nil && many == nil:
		if p.Credential == CredentialInject {
			d.fail(m.node, "add secret: NAME, or credential: passthrough", `Provider needs the field "secret"`)
		}
	case one != nil && many != nil:
		d.fail(m.key["keys"], "put it among the keys", `a provider has "secret" or "keys", not both`)
	case p.Credential == CredentialPassthrough:
		for _, k := range []string{"secret", "keys"} {
			if m.key[k] != nil {
				d.fail(m.key[k], "remove one of them", "with credential: passthrough no secret is used")
			}
		}
	case one != nil:
		if s, ok := d.str(one, "secret"); ok {
			p.Keys = []Key{{Secret: d.secretName(one, s), Weight: 1}}
		}
	default:
		d.keys(many, p)
	}
}

func (d *decoder) keys(n *yaml.Node, p *Provider) {
	if n.Kind == yaml.SequenceNode && (len(n.Content) == 0 || len(n.Content) > maxKeys) {
		d.fail(n, "", "keys has %d entries; it needs 1 to %d", len(n.Content), maxKeys)
		return
	}
	d.list(n, "keys", func(n *yaml.Node) {
		m, ok := d.mapping(n, objKey)
		if !ok {
			return
		}
		k := Key{Weight: 1}
		if s, ok := d.str(m.get("secret"), "secret"); ok {
			k.Secret = d.secretName(m.get("secret"), s)
		}
		if w := m.get("weight"); w != nil {
			k.Weight = uint32(d.number(w, "weight", 1, maxWeight))
		}
		if k.Secret != "" && slices.Contains(p.Secrets(), k.Secret) {
			d.fail(n, "", "secret %s is listed twice", quote(k.Secret))
		}
		p.Keys = append(p.Keys, k)
	})
}

// secretName reads the name of a secret.
func (d *decoder) secretName(n *yaml.Node, s string) string {
	switch {
	case strings.ContainsAny(s, "/\\") || s == "." || s == "..":
		d.fail(n, "a name in the secrets directory", "secret %s is a path: documents name secrets, never paths", quote(s))
	case looksLikeKey(s):
		d.fail(n, "store the key with: ringfence provider add NAME --key-env VAR", "secret looks like a key itself: documents name secrets, never hold them")
	default:
		return d.name(n, "secret")
	}
	return ""
}

// looksLikeKey catches the common mistake of pasting a key; the text is not
// repeated in the message.
func looksLikeKey(s string) bool {
	for _, p := range []string{"sk-", "sk_", "xai-", "gsk_", "AIza", "Bearer "} {
		if strings.HasPrefix(s, p) && len(s) > 20 {
			return true
		}
	}
	return false
}

func (d *decoder) modelEntry(n *yaml.Node, p *Provider) {
	m, ok := d.mapping(n, objModelEntry)
	if !ok {
		return
	}
	var e ModelEntry
	match, ok := d.str(m.get("match"), "match")
	if !ok {
		return
	}
	pat, err := namePattern(match, "model")
	if err != nil {
		d.failText(m.get("match"), err)
		return
	}
	e.Match = pat
	if u := m.get("upstream"); u != nil {
		s, ok := d.str(u, "upstream")
		if ok {
			up, err := namePattern(s, "upstream model")
			if err != nil || up.Wild {
				d.fail(u, "name one model", "upstream %s must be one model's name", quote(s))
			}
			e.Upstream = s
		}
	}
	d.modelFacts(m, &e)
	for _, o := range p.Models {
		if o.Match == e.Match {
			d.fail(n, "", "model %s is listed twice", quote(match))
			return
		}
	}
	p.Models = append(p.Models, e)
}

// modelFacts reads what a model can do.
func (d *decoder) modelFacts(m fieldMap, e *ModelEntry) {
	const most = 1 << 30
	if n := m.get("context"); n != nil {
		e.Context = uint32(d.number(n, "context", 1, most))
	}
	if n := m.get("maxOutput"); n != nil {
		e.MaxOutput = uint32(d.number(n, "maxOutput", 1, most))
	}
	n := m.get("features")
	if n == nil {
		return
	}
	e.Declared = true
	d.list(n, "features", func(n *yaml.Node) {
		if s, ok := d.str(n, "feature"); ok {
			i := slices.Index(featureNames, s)
			if i < 0 {
				d.fail(n, didYouMean(s, featureNames), "unknown feature %s", quote(s))
				return
			}
			e.Features |= 1 << i
		}
	})
}

// parseURL checks the URL of a field and gives its canonical form, without a
// trailing slash. what would be sent there stands in a message.
func parseURL(field, s, what string, plaintext bool) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%s %s is not a URL", field, quote(s))
	}
	switch {
	case u.User != nil:
		return "", fmt.Errorf("%s must not hold a user name or password; use a secret", field)
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Opaque != "":
		return "", fmt.Errorf("%s %s must be https://HOST[:PORT][/PATH]", field, quote(s))
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.HasSuffix(s, "#"):
		return "", fmt.Errorf("%s %s must not have a query or fragment", field, quote(s))
	}
	host, loopback, err := baseHost(u.Hostname())
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", field, quote(s), err)
	}
	if u.Scheme == "http" && !loopback && !plaintext {
		return "", fmt.Errorf("%s %s would send %s in the clear; use https, or allowPlaintext: true", field, quote(s), what)
	}
	if port := u.Port(); port != "" {
		if _, err := parsePort(port); err != nil {
			return "", fmt.Errorf("%s: %w", field, err)
		}
		host += ":" + port
	} else if strings.HasSuffix(u.Host, ":") {
		return "", fmt.Errorf("%s %s has an empty port", field, quote(s))
	}
	path := strings.TrimRight(u.EscapedPath(), "/")
	if path != "" {
		if c, ok := canonicalPath(path); !ok || c != path {
			return "", fmt.Errorf("%s %s: the path is not in normal form", field, quote(s))
		}
	}
	return u.Scheme + "://" + host + path, nil
}

// baseHost is the canonical host part; a literal IPv6 address in brackets.
func baseHost(h string) (host string, loopback bool, err error) {
	if a, err := netip.ParseAddr(h); err == nil {
		if a.Zone() != "" || JudgedAddr(a) != a {
			return "", false, fmt.Errorf("write the address plainly")
		}
		if a.Is6() {
			return "[" + a.String() + "]", a.IsLoopback(), nil
		}
		return a.String(), a.IsLoopback(), nil
	}
	if strings.EqualFold(strings.TrimSuffix(h, "."), "localhost") {
		return "localhost", false, nil
	}
	host, err = documentHost(h)
	return host, false, err
}

// endpoint is where a provider's base URL points: a canonical name, or a
// literal address, and the port.
func (p *Provider) endpoint() (name string, addr netip.Addr, port uint16) {
	u, err := url.Parse(p.BaseURL)
	if err != nil {
		return "", netip.Addr{}, 0
	}
	port = 443
	if u.Scheme == "http" {
		port = 80
	}
	if s := u.Port(); s != "" {
		port, _ = parsePort(s)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		return "", a, port
	}
	return u.Hostname(), netip.Addr{}, port
}

// Endpoint is the host and port that the base URL points at; host is a name
// or a literal address.
func (p *Provider) Endpoint() (host string, port uint16) {
	name, addr, port := p.endpoint()
	if addr.IsValid() {
		return addr.String(), port
	}
	return name, port
}
