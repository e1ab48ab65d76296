// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"os"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
	"github.com/ringfence/ringfence/pkg/wire"
)

func TestPricesFromTheKeeper(t *testing.T) {
	table, err := price.Parse("t", []byte(`{version: v, effective: 2020-01-01, source: s, models: [
		{provider: openai, model: m, rates: {input: "1", output: "2"}, maxOutput: 1000},
		{provider: openai, model: dear, rates: {input: "5", output: "50"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	book, err := price.NewBook(table)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{}
	send := func(b []byte) error {
		f, err := wire.Seal("prices", b)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, _, err = p.onPrices(nil, []*os.File{f})
		return err
	}
	prov := &policy.Provider{Name: "main", Dialect: "openai"}
	if _, ok := p.prices.most(prov, "m", 1, 1); ok {
		t.Error("a price before there is one")
	}
	if err := send(book.AppendSealed(nil)); err != nil {
		t.Fatal(err)
	}
	if err := send([]byte("rubbish")); err == nil {
		t.Error("rubbish was taken")
	}
	if _, _, err := p.onPrices(nil, nil); err == nil {
		t.Error("nothing was taken")
	}
	for _, c := range []struct {
		model         string
		unknown       policy.UnknownPrice
		input, output uint64
		nano          int64
		ok            bool
	}{
		{"m", 0, 1000, 10, 1000*1000 + 10*2000, true},
		{"m", 0, 1000, 0, 1000*1000 + 1000*2000, true},
		{"else", policy.UnknownPriceDeny, 1000, 10, 0, false},
		{"else", policy.UnknownPriceFlag, 1000, 10, 0, false},
		{"else", policy.UnknownPriceEstimate, 1000, 10, 1000*5000 + 10*50000, true},
	} {
		prov.UnknownPrice = c.unknown
		if nano, ok := p.prices.most(prov, c.model, c.input, c.output); nano != c.nano || ok != c.ok {
			t.Errorf("%s %s: %d %v", c.model, c.unknown, nano, ok)
		}
	}
}
