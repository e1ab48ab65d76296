// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
	"github.com/ringfence/ringfence/test/doubles"
)

// priced is a book of made-up prices. The double reports 11 tokens in, 3 of them from
// a cache, and 7 out.
func priced(t *testing.T, models string) func() *price.Book {
	t.Helper()
	table, err := price.Parse("test", []byte("version: v1\neffective: 2020-01-01\nsource: made up\nmodels:\n"+models))
	if err != nil {
		t.Fatal(err)
	}
	b, err := price.NewBook(table)
	if err != nil {
		t.Fatal(err)
	}
	return func() *price.Book { return b }
}

// receipt keeps what a toll was told.
type receipt struct {
	mu    sync.Mutex
	spent []inference.Spent
}

func (r *receipt) Request(context.Context, *inference.Use) (inference.Grant, *inference.Refusal) {
	return inference.Grant{Receipt: r}, nil
}

func (r *receipt) Attempt(context.Context, *inference.Use) (inference.Grant, *inference.Refusal) {
	return inference.Grant{}, nil
}
func (r *receipt) Sent() {}
func (r *receipt) Done(s inference.Spent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent = append(r.spent, s)
}

func TestCallsArePriced(t *testing.T) {
	const table = `
  - {provider: openai, model: gpt-x, rates: {input: "2", cachedInput: "0.5", output: "10", request: "0.000001"}}
  - {provider: openai, model: gpt-half, rates: {input: "2", output: "10"}}
  - {provider: anthropic-main, model: "claude-*", rates: {input: "1000", cachedInput: "100", output: "2000"}}
  - {provider: anthropic, model: claude-s, rates: {input: "1", output: "1"}}
`
	for _, c := range []struct {
		name, model, host string
		unknown           policy.UnknownPrice
		none              bool
		trial             bool
		price, entry      string
		nano              int64
	}{
		{name: "its own price", model: "gpt-x", price: event.PriceKnown, entry: "openai/gpt-x", nano: 8*2000 + 3*500 + 7*10000 + 1000},
		{name: "without its date", model: "gpt-x-2026-01-31", price: event.PriceKnown, entry: "openai/gpt-x", nano: 8*2000 + 3*500 + 7*10000 + 1000},
		{name: "cached input at the price of input", model: "gpt-half", price: event.PriceAssumed, entry: "openai/gpt-half", nano: 11*2000 + 7*10000},
		{name: "the provider by its own name first", model: "claude-s", host: claudeHost, price: event.PriceAssumed, entry: "anthropic-main/claude-*", nano: 8*1000000 + 3*100000 + 7*2000000},
		{name: "unknown, deny without a budget", model: "else", price: event.PriceUnknown},
		{name: "unknown, flag", model: "else", unknown: policy.UnknownPriceFlag, price: event.PriceUnknown},
		{name: "unknown, estimate", model: "else", unknown: policy.UnknownPriceEstimate, price: event.PriceEstimated, entry: "openai/gpt-half", nano: 11*2000 + 7*10000},
		{name: "no prices at all", model: "gpt-x", none: true, price: event.PriceUnknown},
		{name: "the trial provider costs nothing", model: "gpt-x", trial: true, price: event.PriceKnown},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := &receipt{}
			s := setup{trial: c.trial, change: func(p *policy.Provider) { p.UnknownPrice = c.unknown }}
			s.opt.Tolls = []inference.Toll{told}
			if !c.none {
				s.opt.Prices = priced(t, table)
			}
			f := newFence(t, s)
			body := `{"model":"` + c.model + `","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}`
			if c.host == claudeHost {
				f.message(body)
			} else {
				f.chat(body)
			}
			ev := f.event()
			if ev.Price != c.price || ev.PriceModel != c.entry || ev.Cost != uint64(c.nano) || (ev.PriceVersion == "v1") != (c.entry != "") {
				t.Errorf("%s %q %d of %q", ev.Price, ev.PriceModel, ev.Cost, ev.PriceVersion)
			}
			told.mu.Lock()
			defer told.mu.Unlock()
			u := told.spent[0].Usage
			if len(told.spent) != 1 || u.Cost != c.nano || u.CostKnown != (c.price != event.PriceUnknown) || !c.trial && (u.Units[price.Output] != 7 || u.Units[price.CachedInput] != 3 || u.Input != 11) {
				t.Errorf("tolls were told %+v", told.spent)
			}
		})
	}
}

func TestWordsOfUnknownPricesAreTheSame(t *testing.T) {
	for _, u := range []policy.UnknownPrice{policy.UnknownPriceDeny, policy.UnknownPriceEstimate, policy.UnknownPriceFlag} {
		if price.Unknown(u).String() != u.String() {
			t.Errorf("%d is %s and %s", u, u, price.Unknown(u))
		}
	}
}

func TestAnErrorOfTheProviderIsNotPriced(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{Prices: priced(t, `  - {provider: openai, model: m, rates: {input: "2"}}`)}})
	f.double.Fail(doubles.Fault{Status: 400})
	f.chat(`{"model":"m","messages":[]}`)
	if ev := f.event(); ev.Price != "" || ev.Cost != 0 || ev.TokensIn != 0 {
		t.Errorf("%+v", ev)
	}
}

func TestUsageIsAskedForAndHidden(t *testing.T) {
	for _, c := range []struct {
		name, path, body, sent string
		base                   string
	}{
		{"chat", "/v1/chat/completions", `{ "model":"m","stream":true, "messages":[],"x":1.0}`, `{"stream_options":{"include_usage":true}, "model":"m","stream":true, "messages":[],"x":1.0}`, ""},
		{"asked by the client", "/v1/chat/completions", `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}`, "", ""},
		{"no stream", "/v1/chat/completions", `{"model":"m","messages":[]}`, "", ""},
		{"responses tell it anyway", "/v1/responses", `{"model":"m","stream":true,"input":"hi"}`, "", ""},
		{"a provider that refuses to be asked", "/v1/chat/completions", `{"model":"m","stream":true,"messages":[]}`, "", "https://api.mistral.ai/v1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFence(t, setup{change: func(p *policy.Provider) {
				if c.base != "" {
					p.BaseURL = c.base
				}
			}})
			if c.base != "" {
				tr := serveDouble(t, f.double, "api.mistral.ai")
				f.call.Transport = func(*policy.Provider) http.RoundTripper { return tr }
			}
			direct := directAnswer(t, f.double, openAIHost, c.path, c.body)
			f.double.Reset()
			_, got := f.ask("POST", "https://"+openAIHost+c.path, c.body)
			if c.sent == "" {
				c.sent = c.body
			}
			if sent := string(f.double.Last().Body); sent != c.sent {
				t.Errorf("sent %s", sent)
			}
			if got != direct {
				t.Errorf("the client got\n%q\nnot\n%q", got, direct)
			}
			if ev := f.event(); ev.Estimated != (c.base != "") || !ev.Estimated && ev.TokensIn != 11 {
				t.Errorf("%+v", ev)
			}
		})
	}
}

func TestAStreamThatBreaksOffIsCountedHere(t *testing.T) {
	f := newFence(t, setup{opt: inference.Options{Prices: priced(t, `  - {provider: openai, model: m, rates: {input: "1", output: "1"}}`)}})
	f.double.Text = strings.Repeat("word ", 400)
	f.double.Fail(doubles.Fault{Gap: time.Millisecond, CutAfter: 30})
	f.chat(`{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there, please write a lot"}]}`)
	if ev := f.event(); !ev.Failed || !ev.Estimated || ev.TokensOut < 10 || ev.TokensIn < 5 || ev.Cost != (ev.TokensIn+ev.TokensOut)*1000 || ev.Price != event.PriceKnown {
		t.Errorf("%+v", ev)
	}
}
