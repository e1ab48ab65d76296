// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// platforms is the registration table of other ways to address a model than its
// dialect's own API. The agent speaks its dialect to its own host and sees nothing of
// them: a platform changes only what goes out, and turns the answer back. A new one is
// a file and a line here.
var platforms = []*platform{&azure, &bedrock, &vertex}

// platform is one of them. Everything in it is read-only.
type platform struct {
	name     string
	dialects []string // for which it is built
	// address rewrites a judged request. What the platform does not have is refused.
	address func(o *outbound) *refusal
	// authorize puts the credential on the finished request. It returns the secrets
	// that no answer may contain.
	authorize func(ctx context.Context, o *outbound, req *http.Request) (secrets []string, err error)
	// answer turns an answer into the dialect's own; nil: it is that already.
	answer func(o *outbound, resp *http.Response)
}

// outbound is a judged request on its way to a platform.
type outbound struct {
	d      *dialect
	route  *route
	stream bool   // the agent asked for one
	model  string // as the platform calls it
	region string // of the provider's document; "" = not said

	base *url.URL    // the provider's base URL
	path string      // in the dialect's form; address makes it the rest of the platform's, escaped
	body []byte      // with the provider's name of the model; nil without one
	tape *tape       // of the body as the agent sent it
	head http.Header // of outboundHeaders, without a credential

	query string // as admitted
	key   string // the secret's text

	now   func() time.Time
	token func(ctx context.Context, key string) (string, error) // an access token for a Google service account
}

func platformByName(name string) *platform {
	for _, p := range platforms {
		if p.name == name {
			return p
		}
	}
	return nil
}

// Platforms lists the platforms of a dialect that this build knows.
func Platforms(dialect string) (names []string) {
	for _, p := range platforms {
		if slices.Contains(p.dialects, dialect) {
			names = append(names, p.name)
		}
	}
	return names
}

// url is where an addressed request goes.
func (o *outbound) url() (*url.URL, error) {
	out := *o.base
	escaped := o.base.EscapedPath() + o.path
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return nil, errBadBase
	}
	out.Path, out.RawPath, out.RawQuery = plain, escaped, o.query
	return &out, nil
}

// lacks is the refusal of an operation that a platform does not have.
func (o *outbound) lacks(platform string) *refusal {
	return &refusal{status: http.StatusNotImplemented, code: codeConfig, reason: "platform",
		message: o.route.method + " " + o.route.path + " is not built for the platform " + platform,
		remedy:  "Use the main operations of the API, or ask the operator for a provider without a platform"}
}

// keep drops all headers but those.
func (o *outbound) keep(names ...string) {
	for name := range o.head {
		if !slices.Contains(names, http.CanonicalHeaderKey(name)) {
			delete(o.head, name)
		}
	}
}
