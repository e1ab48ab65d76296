// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
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
	tape *tape       // of that body; empty without one
	head http.Header // of outboundHeaders, without a credential

	query string // as admitted
	key   string // the secret's text

	now func() time.Time

	token  func(ctx context.Context, key string) (string, error) // an access token for a Google service account
	forget func(key string)                                      // one that was refused
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

// onPlatform makes the request to a provider that is addressed by a platform. o has what
// would be sent without one.
func (x *exchange) onPlatform(a *answer, key string, o *outbound) (*http.Request, *refusal) {
	prov := a.from.prov
	p := platformByName(prov.Platform)
	if p == nil || !slices.Contains(p.dialects, o.d.name) {
		return nil, x.unusable(prov, errors.New("the platform "+quote(prov.Platform)+" is not built in this version for the dialect "+o.d.name))
	}
	if err := x.complete(o, a.from); err != nil {
		return nil, x.unusable(prov, err)
	}
	if ref := p.address(o); ref != nil {
		return nil, ref
	}
	a.credential = credentialInjected
	if o.key = x.secret(key); o.key == "" {
		return nil, noSecret(o.d, prov)
	}
	u, err := o.url()
	if err != nil {
		return nil, x.unusable(prov, err)
	}
	req, ref := x.request(a, u, o.body, o.head)
	if ref != nil {
		return nil, ref
	}
	if a.secrets, err = p.authorize(a.ctx, o, req); err != nil {
		return nil, x.unauthorized(prov, err)
	}
	req.Header.Set("Accept-Encoding", "identity") // after what may have been signed
	if p.answer != nil {
		a.turn = func(resp *http.Response) { p.answer(o, resp) }
	}
	return req, nil
}

// complete adds to o what only a platform needs to know.
func (x *exchange) complete(o *outbound, c *candidate) (err error) {
	o.stream, o.model, o.region, o.now = x.asked.stream, c.upstream, c.prov.Region, time.Now
	o.head.Del("Accept-Encoding")
	if o.base, err = url.Parse(c.prov.BaseURL); err != nil {
		return errBadBase
	}
	o.tape = &tape{}
	if o.route.body { // it may have been changed or translated since it was judged
		t, err := parse(o.body, nil, nil)
		if err != nil {
			return err
		}
		o.tape = &t
	}
	o.token = func(ctx context.Context, key string) (string, error) {
		return x.r.tokens.token(ctx, key, x.c.Transport(&policy.Provider{Name: c.prov.Name + " tokens", BaseURL: googleTokenURL}))
	}
	o.forget = x.r.tokens.forget
	return nil
}

// unauthorized is the refusal where a platform's credential could not be had. The
// error's text may name what the agent must not read: the record has it.
func (x *exchange) unauthorized(p *policy.Provider, err error) *refusal {
	x.rec.ev.Detail = scrubText(err.Error(), nil)
	if errors.Is(err, errBadKey) || errors.Is(err, errNoRegion) {
		ref := x.unusable(p, err)
		ref.remedy = "The operator should check its document and its secret"
		return ref
	}
	return &refusal{status: http.StatusBadGateway, code: codeUpstream, reason: "upstream-credential",
		message: "the provider " + quote(p.Name) + " has no access to its platform now", remedy: "Try again later"}
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
