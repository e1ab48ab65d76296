// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (d *decoder) provider(m fieldMap, doc *Document) *Provider {
	p := &Provider{Name: doc.Name, Scope: doc.Scope, Credential: CredentialInject, File: doc.File, Line: doc.Line}
	if n := m.get("dialect"); n != nil {
		if s, ok := d.str(n, "dialect"); ok {
			switch s {
			case DialectOpenAI, DialectAnthropic:
				p.Dialect = s
			case "gemini", "google", "vertex", "bedrock", "azure", "azure-openai", "cohere", "mistral", "ollama":
				d.fail(n, "built are: openai, anthropic", "dialect %q is not built in this version", s)
			default:
				d.fail(n, didYouMean(s, []string{DialectOpenAI, DialectAnthropic}), "unknown dialect %s", quote(s))
			}
		}
	}
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
	d.providerSecret(m, p)
	d.list(m.get("models"), "models", func(n *yaml.Node) { d.modelEntry(n, p) })
	if n := m.get("models"); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		d.fail(n, "leave it out to configure every model", "models is an empty list")
	}
	if n := m.get("resolvesTo"); n != nil {
		p.ResolvesTo = d.prefixes(n, "resolvesTo")
	}
	return p
}

func (d *decoder) providerSecret(m fieldMap, p *Provider) {
	n := m.get("secret")
	if n == nil {
		if p.Credential == CredentialInject {
			d.fail(m.node, "add secret: NAME, or credential: passthrough", `Provider needs the field "secret"`)
		}
		return
	}
	if p.Credential == CredentialPassthrough {
		d.fail(m.key["secret"], "remove one of them", "with credential: passthrough no secret is used")
		return
	}
	if s, ok := d.str(n, "secret"); ok {
		p.Secret = d.secretName(n, s)
	}
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
	for _, o := range p.Models {
		if o.Match == e.Match {
			d.fail(n, "", "model %s is listed twice", quote(match))
			return
		}
	}
	p.Models = append(p.Models, e)
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
