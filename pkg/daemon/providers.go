// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// knownProviders fill what `provider add` leaves out.
var knownProviders = map[string]struct{ dialect, baseURL string }{
	"openai":    {policy.DialectOpenAI, "https://api.openai.com"},
	"anthropic": {policy.DialectAnthropic, "https://api.anthropic.com"},
	"gemini":    {policy.DialectGemini, "https://generativelanguage.googleapis.com"},
}

func (b *backend) Providers(context.Context) ([]api.Provider, error) {
	var out []api.Provider
	for _, p := range b.d.library.Snapshot().Providers() {
		out = append(out, b.d.describeProvider(&p))
	}
	return out, nil
}

func (d *Daemon) describeProvider(p *policy.Provider) api.Provider {
	v := api.Provider{Name: p.Name, Dialect: p.Dialect, Platform: p.Platform, BaseURL: p.BaseURL, Credential: p.Credential, Secret: strings.Join(p.Secrets(), ", "), Source: p.File}
	v.HasSecret = d.hasKeys(p)
	for _, m := range p.Models {
		v.Models = append(v.Models, m.Match.String())
	}
	return v
}

// hasKeys says whether every key that a provider names is there.
func (d *Daemon) hasKeys(p *policy.Provider) bool {
	for _, s := range p.Secrets() {
		if !d.secrets.Has(s) {
			return false
		}
	}
	return len(p.Keys) > 0
}

// AddProvider stores the key first, so that the document never names a secret
// that is not there.
func (b *backend) AddProvider(ctx context.Context, c *api.Caller, r *api.ProviderRequest) (api.Provider, error) {
	d := b.d
	known, ok := knownProviders[r.Name]
	if r.Dialect == "" {
		r.Dialect = known.dialect
	}
	if r.BaseURL == "" {
		r.BaseURL = known.baseURL
	}
	if r.Dialect == "" || r.BaseURL == "" {
		if !ok {
			return api.Provider{}, api.Errorf(api.CodeBadRequest, "provider %q is not one that Ringfence knows: say --dialect (%s) and --base-url", r.Name, strings.Join(policy.Dialects(), " or "))
		}
	}
	if r.Credential == "" {
		r.Credential = policy.CredentialInject
	}
	if r.Credential == policy.CredentialInject && len(r.Key) == 0 {
		return api.Provider{}, api.Errorf(api.CodeBadRequest, "provider %s needs a key", r.Name).
			WithRemedy("name the variable that holds it with --key-env VAR, or use --credential passthrough to forward the agent's own")
	}
	file := providerFile(r.Name)
	text := providerText(r)
	docs, problems := policy.Parse(file, []byte(text))
	if len(problems) > 0 || len(docs) != 1 {
		return api.Provider{}, api.Errorf(api.CodeBadRequest, "%v", policy.Problems(problems))
	}
	d.providing.Lock()
	defer d.providing.Unlock()
	if err := b.putProvider(c, r, file, text); err != nil {
		return api.Provider{}, err
	}
	if err := d.sendSecrets(ctx, d.gateway); err != nil { // a new key under an old document
		return api.Provider{}, api.Errorf(api.CodeUnavailable, "stored, but the gateway does not have the key yet: %v", err)
	}
	wctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := d.policy.wait(wctx, d.library.Snapshot().Revision()); err != nil {
		return api.Provider{}, api.Errorf(api.CodeUnavailable, "%v", err)
	}
	return d.describeProvider(docs[0].Provider), nil
}

// putProvider stores key and document, if the caller may still do so when it is its
// turn: a change of who may waits for the same lock.
func (b *backend) putProvider(c *api.Caller, r *api.ProviderRequest, file, text string) error {
	d := b.d
	d.applying.Lock()
	defer d.applying.Unlock()
	if !b.rightsNow(c).Node(policy.RightAdmin) {
		return lostRole()
	}
	if r.Credential == policy.CredentialInject {
		if err := d.secrets.Put(r.Name, []byte(r.Key)); err != nil {
			return api.Errorf(api.CodeBadRequest, "%v", err)
		}
	}
	if err := d.library.Put(d.act(c, "provider-add", "", scope.All()), file, text); err != nil {
		return api.Errorf(api.CodeConflict, "%v", err)
	}
	return nil
}

// takeProvider removes the document that AddProvider wrote, if the caller may still
// do so, and says what it was.
func (b *backend) takeProvider(c *api.Caller, name string) (*documents.Item, error) {
	d := b.d
	d.applying.Lock()
	defer d.applying.Unlock()
	if !b.rightsNow(c).Node(policy.RightAdmin) {
		return nil, lostRole()
	}
	p, err := d.addedProvider(name)
	if err != nil {
		return nil, err
	}
	if _, err := d.library.RemoveBy(d.act(c, "provider-remove", "", scope.All()), p.Source); err != nil {
		return nil, api.Errorf(api.CodeInternal, "%v", err)
	}
	return p, nil
}

// providerFile is where AddProvider writes.
func providerFile(name string) string { return "provider-" + name + ".yaml" }

// RemoveProvider removes the document first, so that nothing names a key that
// is gone.
func (b *backend) RemoveProvider(ctx context.Context, c *api.Caller, name string) (api.ProviderRemoved, error) {
	d := b.d
	d.providing.Lock()
	defer d.providing.Unlock()
	p, err := b.takeProvider(c, name)
	if err != nil {
		return api.ProviderRemoved{}, err
	}
	res := api.ProviderRemoved{Name: name, Document: p.File}
	snap := d.library.Snapshot()
	res.Revision = snap.Revision()
	for _, left := range snap.Providers() {
		if slices.Contains(left.Secrets(), name) {
			res.KeptKey = left.File
		}
	}
	if res.KeptKey == "" {
		if err := d.secrets.Remove(name); err != nil {
			return res, api.Errorf(api.CodeInternal, "the provider is removed, its key is not: %v", err)
		}
	}
	wctx, cancel := context.WithTimeout(ctx, enforceTime)
	defer cancel()
	if err := d.policy.wait(wctx, res.Revision); err != nil { // the gateway has lost the key with it
		return res, api.Errorf(api.CodeUnavailable, "%v", err)
	}
	var left []string
	for _, next := range snap.Providers() {
		if next.Dialect == p.Provider.Dialect {
			left = append(left, next.Name)
		}
	}
	res.Note = "calls in the " + p.Provider.Dialect + " dialect are answered by the built-in trial provider from now on, where no route says otherwise"
	if len(left) > 0 {
		res.Note = "calls in the " + p.Provider.Dialect + " dialect go to " + strings.Join(left, ", ") + " from now on, where no route says otherwise"
	}
	return res, nil
}

// addedProvider finds what AddProvider wrote, or says why there is nothing to
// remove.
func (d *Daemon) addedProvider(name string) (*documents.Item, error) {
	var found *documents.Item
	var other *policy.Provider
	var applied bool
	var names []string
	for _, it := range d.library.Items() {
		switch {
		case it.Provider == nil:
		case it.Provider.Name != name:
			names = append(names, it.Provider.Name)
		case it.Origin == documents.FromAPI && filepath.Base(it.Source) == providerFile(name):
			found = &it
		default:
			other, applied = it.Provider, isApplied(&it)
		}
	}
	switch {
	case found != nil:
		return found, nil
	case other != nil:
		return nil, api.Errorf(api.CodeConflict, "the provider %q was not made by `ringfence provider add`: it stands in %s:%d", name, other.File, other.Line).
			WithRemedy(removeProviderDocument(other, applied))
	case len(names) == 0:
		return nil, api.Errorf(api.CodeNotFound, "no provider %q: none is configured", name)
	}
	return nil, api.Errorf(api.CodeNotFound, "no provider %q: there is %s", name, strings.Join(names, ", "))
}

func removeProviderDocument(p *policy.Provider, applied bool) string {
	if applied {
		return "remove it with `ringfence policy delete " + p.Name + "`"
	}
	return "remove it from that file; a change of the policy directory is in force at once"
}

func providerText(r *api.ProviderRequest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: %s\nkind: %s\nmetadata: {name: %s}\ndialect: %s\nbaseURL: %s\ncredential: %s\n",
		policy.APIVersion, policy.KindProvider, strconv.Quote(r.Name), strconv.Quote(r.Dialect), strconv.Quote(r.BaseURL), strconv.Quote(r.Credential))
	if r.Credential == policy.CredentialInject {
		fmt.Fprintf(&b, "secret: %s\n", strconv.Quote(r.Name))
	}
	if r.Platform != "" {
		fmt.Fprintf(&b, "platform: %s\n", strconv.Quote(r.Platform))
	}
	if len(r.Models) > 0 {
		b.WriteString("models:\n")
		for _, m := range r.Models {
			fmt.Fprintf(&b, "  - {match: %s}\n", strconv.Quote(m))
		}
	}
	if len(r.ResolvesTo) > 0 {
		b.WriteString("resolvesTo:\n")
		for _, p := range r.ResolvesTo {
			fmt.Fprintf(&b, "  - %s\n", strconv.Quote(p))
		}
	}
	return b.String()
}
