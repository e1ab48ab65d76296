// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

var errBadBase = errors.New("the provider's base URL is not usable")

// commonHeaders are forwarded in every dialect. Request headers are an
// allow-list: besides credentials, other gateways and proxies take routing
// orders from headers ("x-portkey-custom-host", "x-http-method-override"), and
// an order to send the call elsewhere would send the injected key elsewhere.
var commonHeaders = []string{
	"accept", "accept-language", "content-type", "user-agent",
	"idempotency-key", "x-client-request-id", "x-request-id",
}

// commonPrefixes are forwarded in every dialect: what the official SDKs say
// about themselves.
var commonPrefixes = []string{"x-stainless-"}

// unboundHeaders and everything of commonPrefixes are forwarded and change nothing of
// what the provider does but for its records and for doing it twice: the official
// SDKs, or who sends a request again, make them anew for each attempt or call. An
// approval for one use is for all other headers that are forwarded; credentials
// are no part of it.
var unboundHeaders = []string{"user-agent", "idempotency-key", "x-client-request-id", "x-request-id"}

// boundHeaders are those that an approval is bound to, of those that are forwarded.
func boundHeaders(out http.Header) http.Header {
	for name := range out {
		if low := strings.ToLower(name); slices.Contains(unboundHeaders, low) || hasPrefixOf(low, commonPrefixes) {
			delete(out, name)
		}
	}
	return out
}

// droppedAnswerHeaders never reach the sandbox: hop-by-hop ones, cookies of
// the provider's edge, a way to HTTP/3, the operator's account names.
var droppedAnswerHeaders = []string{
	"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
	"transfer-encoding", "upgrade", "set-cookie", "set-cookie2", "alt-svc", "location", "refresh", "nel", "report-to",
	"www-authenticate", "authentication-info", "clear-site-data", "openai-organization", "openai-project",
	"anthropic-organization-id", "anthropic-workspace-id",
}

// outboundHeaders builds the headers to the provider from those of the client.
func outboundHeaders(d *dialect, in http.Header) http.Header {
	out := make(http.Header, len(in))
	for name, vals := range in {
		low := strings.ToLower(name)
		if slices.Contains(commonHeaders, low) || slices.Contains(d.headers, low) || hasPrefixOf(low, commonPrefixes) {
			out[name] = vals
		}
	}
	// Usage is read on the side and keys are scrubbed: ask for plain bytes.
	out.Set("Accept-Encoding", "identity")
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""} // none, instead of Go's own
	}
	return out
}

func hasPrefixOf(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

const (
	credentialInjected    = "injected"
	credentialPassthrough = policy.CredentialPassthrough // forwards the agent's own credential
)

// addCredential puts the real key of that name, or with passthrough the agent's own
// credential, on the outbound headers. It returns which of the two it was, and the
// secrets that no answer may contain.
func (x *exchange) addCredential(d *dialect, out http.Header, p *policy.Provider, name string) (kind string, secrets []string, ref *refusal) {
	if p.Credential == credentialPassthrough {
		var found bool
		for _, name := range d.credentials {
			if v := x.in.Header.Values(name); len(v) == 1 && v[0] != "" {
				out[http.CanonicalHeaderKey(name)] = v
				found = true
			}
		}
		if _, query, _ := strings.Cut(target(x.in), "?"); !found {
			if key := callersKey(x.d, query); key != "" && headerSafe(key) {
				out.Set(x.d.queryKeyHeader, key)
				found = true
			}
		}
		if !found {
			return credentialPassthrough, nil, &refusal{status: http.StatusUnauthorized, code: codeConfig, reason: "credential",
				message: "provider " + quote(p.Name) + " passes the agent's own credential on, and this request has none",
				remedy:  "Log the agent in, or set credential: inject on the provider"}
		}
		return credentialPassthrough, nil, nil
	}
	for _, name := range d.credentials {
		out.Del(name)
	}
	key := x.secret(name)
	if key == "" || !headerSafe(key) {
		return credentialInjected, nil, noSecret(d, p)
	}
	d.inject(out, key)
	return credentialInjected, []string{key}, nil
}

// secret is a secret's text, "" if there is none of that name.
func (x *exchange) secret(name string) string {
	if x.c.Secrets == nil || name == "" {
		return ""
	}
	key, ok := x.c.Secrets(name)
	if !ok {
		return ""
	}
	return strings.TrimSpace(key)
}

func noSecret(d *dialect, p *policy.Provider) *refusal {
	ref := &refusal{status: http.StatusServiceUnavailable, code: codeConfig, reason: "secret",
		message: "the secret that provider " + quote(p.Name) + " names is missing or unusable",
		remedy:  "The operator has to put the key into the directory of secrets as " + strings.Join(p.Secrets(), ", ")}
	if names := p.Secrets(); len(names) == 1 && names[0] == d.name { // as `provider add` makes them
		ref.remedy, ref.command = "The operator can store it with: "+d.addCommand(), d.addCommand()
	}
	return ref
}

func headerSafe(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// copyAnswerHeaders passes the provider's headers on, without those of one hop
// or of the operator's account, and without any that holds a secret.
func copyAnswerHeaders(dst, src http.Header, secrets []string) {
	drop := src.Values("Connection")
	for name, vals := range src {
		low := strings.ToLower(name)
		if slices.Contains(droppedAnswerHeaders, low) || strings.HasPrefix(low, "x-ringfence-") || namedIn(drop, low) || holdsAny(vals, secrets) {
			continue
		}
		dst[name] = vals
	}
}

func namedIn(connection []string, low string) bool {
	for _, v := range connection {
		for _, f := range strings.Split(v, ",") {
			if strings.ToLower(strings.TrimSpace(f)) == low {
				return true
			}
		}
	}
	return false
}

func holdsAny(vals, secrets []string) bool {
	for _, v := range vals {
		for _, s := range secrets {
			if strings.Contains(v, s) {
				return true
			}
		}
	}
	return false
}
