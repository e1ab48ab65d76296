// SPDX-License-Identifier: Apache-2.0

package price

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

const table = `# ours
version: "2026-11"
effective: 2026-11-01
source: a made-up list
models:
  - provider: anthropic
    model: made-up-1
    rates: {input: 3, output: "15", cachedInput: 0.3, webSearch: "0.01"}
    tiers:
      - {contextOver: 200000, rates: {input: "6"}}
      - {contextOver: 500000, rates: {output: "30"}}
    maxOutput: 64000
  - {provider: "*", model: "local-*", rates: {input: "0", output: "0"}}
`

func TestParseTable(t *testing.T) {
	got, err := Parse("p.yaml", []byte(table))
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != "2026-11" || !got.Effective.Equal(day) || got.Source != "a made-up list" || len(got.Models) != 2 {
		t.Fatalf("%+v", got)
	}
	m := &got.Models[0]
	if m.MaxOutput != 64000 || m.Rates.rate[Input] != 3e9 || m.Rates.rate[WebSearch] != 1e13 || m.Rates.set.Has(Reasoning) {
		t.Errorf("%+v", m)
	}
	if v, ok := m.Tiers[1].Get(Input); !ok || v != 6e9 {
		t.Errorf("a tier takes what it does not say from the one below: %v %v", v, ok)
	}
	again, err := Parse("again", got.AppendYAML(nil))
	if err != nil || !reflect.DeepEqual(again.AppendYAML(nil), got.AppendYAML(nil)) {
		t.Errorf("written and read again: %v", err)
	}
}

func TestBadTablesAreRefusedWithTheirPlace(t *testing.T) {
	with := func(old, new string) string { return strings.Replace(table, old, new, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", with("maxOutput:", "maxOuput:"), "p.yaml:12:5: a model has no field"},
		{"unknown unit", with("cachedInput", "cached"), "p.yaml:8:37: rates has no field"},
		{"twice", with("    maxOutput: 64000", "    maxOutput: 1\n    maxOutput: 2"), "p.yaml:13:5: the field maxOutput is there twice"},
		{"missing", with("version: \"2026-11\"\n", ""), "needs the field version"},
		{"too fine", with(`"15"`, `"0.0000000001"`), "p.yaml:8:31: the price \"0.0000000001\" of output: finer"},
		{"negative", with(`"15"`, `"-1"`), "not a decimal"},
		{"a list as a price", with(`"15"`, `[1]`), "not a decimal"},
		{"alias", with("rates: {input: \"0\", output: \"0\"}", "rates: *x"), "p.yaml"},
		{"anchor", with("rates: {input: 3", "rates: &x {input: 3"), "rates has to be a mapping"},
		{"no price", with(`{input: "6"}`, "{}"), "rates name no price"},
		{"tiers out of order", with("contextOver: 500000", "contextOver: 200000"), "ascending"},
		{"zero tier", with("contextOver: 200000", "contextOver: 0"), "whole number above 0"},
		{"pattern in the middle", with(`"local-*"`, `"lo*al"`), "with a * at its end only"},
		{"provider pattern", with(`provider: "*"`, `provider: "open*"`), "a provider is one kind"},
		{"model twice", table + `  - {provider: "*", model: "local-*", rates: {input: "1"}}` + "\n", "twice"},
		{"two documents", table + "---\n" + table, "one table"},
		{"rubbish behind", table + "---\n\t{", "p.yaml"},
		{"not a day", with("2026-11-01", "tomorrow"), "has to be a day"},
		{"control character", with("a made-up list", `"a\x1b[31m"`), "not printable"},
		{"version", with(`"2026-11"`, `"2026 11"`), "version"},
		{"a list", "[]", "has to be a mapping"},
		{"nothing", "", "not a YAML"},
		{"null", "null", "has to be a mapping"},
		{"too large", strings.Repeat("#", MaxTable+1), "larger than"},
	} {
		_, err := Parse("p.yaml", []byte(c.text))
		var p *Problem
		if err == nil || !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

func imported(t *testing.T, name string, f func([]byte, ImportOptions) (Imported, error), o ImportOptions) Imported {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	o.Version, o.Effective, o.Source = "v1", day, "testdata"
	got, err := f(text, o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestImportsAreWhatTheListsSay(t *testing.T) {
	for _, c := range []struct {
		file string
		f    func([]byte, ImportOptions) (Imported, error)
		free bool
		want string
		skip string
	}{
		{"litellm.json", ImportLiteLLM, false, `
{provider: "aiml", model: "made-up-image", rates: {image: "0.026"}}
{provider: "anthropic", model: "made-up-long", rates: {input: "3", cachedInput: "0.3", cacheWrite5m: "3.75", cacheWrite1h: "6", output: "15", webSearch: "0.0125"}, tiers: [{contextOver: 200000, rates: {input: "6", cachedInput: "0.6", cacheWrite5m: "7.5", cacheWrite1h: "7.5", output: "22.5", webSearch: "0.0125"}}]}
{provider: "azure", model: "eu/made-up-chat", rates: {input: "1.375", output: "11"}}
{provider: "bedrock", model: "eu.vendor.made-up-v1:0", rates: {input: "0.240000001", output: "0.96"}}
{provider: "cohere", model: "made-up-rerank", rates: {input: "0", request: "0.002"}}
{provider: "gemini", model: "made-up-thinker", rates: {input: "0.3", audioInput: "1", output: "2.5", reasoning: "3.5"}}
{provider: "openai", model: "made-up-chat", rates: {input: "1.25", cachedInput: "0.125", output: "10"}, maxInput: 272000, maxOutput: 128000}`,
			"1024-x-1024/made-up-pixels: it is priced by what is not counted here: input_cost_per_pixel; made-up-free: its price is zero, which the list also writes where none is known; no-provider: it names no provider"},
		{"modelsdev.json", ImportModelsDev, true, `
{provider: "anthropic", model: "made-up-long", rates: {input: "3", cachedInput: "0.3", cacheWrite5m: "3.75", output: "15"}, tiers: [{contextOver: 200000, rates: {input: "6", cachedInput: "0.6", cacheWrite5m: "7.5", output: "22.5"}}], maxInput: 200000, maxOutput: 64000}
{provider: "gemini", model: "made-up-ears", rates: {input: "0.3", audioInput: "1", output: "2.5", reasoning: "3.5"}}
{provider: "openai", model: "made-up-chat", rates: {input: "5", cachedInput: "0.5", output: "30"}, tiers: [{contextOver: 272000, rates: {input: "10", cachedInput: "1", output: "45"}}], maxInput: 272000, maxOutput: 128000}
{provider: "some-plan", model: "made-up-free", rates: {input: "0", output: "0"}}`,
			"openai/made-up-unpriced: it has no price"},
	} {
		got := imported(t, c.file, c.f, ImportOptions{Free: c.free})
		_, models, _ := strings.Cut(string(got.Table.AppendYAML(nil)), "models:")
		models = strings.TrimRight(strings.ReplaceAll(models, "\n  - ", "\n"), "\n")
		if models != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.file, models, c.want)
		}
		var skipped []string
		for _, s := range got.Skipped {
			skipped = append(skipped, s.Name+": "+s.Why)
		}
		if s := strings.Join(skipped, "; "); s != c.skip {
			t.Errorf("%s skipped:\n%s\nwant\n%s", c.file, s, c.skip)
		}
	}
	only := imported(t, "litellm.json", ImportLiteLLM, ImportOptions{Providers: []string{"openai"}})
	if len(only.Table.Models) != 1 || only.Table.Models[0].Name != "made-up-chat" {
		t.Errorf("%+v", only.Table.Models)
	}
}

func TestImportsRefuseWhatTheyCannotTrust(t *testing.T) {
	o := ImportOptions{Version: "v", Effective: day, Source: "s"}
	for name, text := range map[string]string{
		"nothing": "", "a list": "[]", "empty": "{}", "cut": `{"a":{"litellm_provider":"openai"`, "something behind": `{} {}`,
		"no price": `{"a":{"litellm_provider":"openai","models":{}}}`,
	} {
		for _, f := range []func([]byte, ImportOptions) (Imported, error){ImportLiteLLM, ImportModelsDev} {
			if _, err := f([]byte(text), o); err == nil {
				t.Errorf("%s is taken", name)
			}
		}
	}
	for _, o := range []ImportOptions{{}, {Version: "a b", Effective: day, Source: "s"}, {Version: "v", Source: "s"}, {Version: "v", Effective: day}} {
		if _, err := ImportLiteLLM([]byte(`{"a":{"litellm_provider":"openai","input_cost_per_token":1}}`), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func TestSealedBook(t *testing.T) {
	own, err := Parse("p.yaml", []byte(table))
	if err != nil {
		t.Fatal(err)
	}
	b := book(t, own, imported(t, "litellm.json", ImportLiteLLM, ImportOptions{}).Table)
	sealed := b.AppendSealed(nil)
	back, err := OpenSealed(sealed)
	if err != nil || !reflect.DeepEqual(b.Tables(), back.Tables()) {
		t.Fatalf("%v\n%+v\n%+v", err, b.Tables(), back.Tables())
	}
	for n := range sealed {
		if _, err := OpenSealed(sealed[:n]); err == nil {
			t.Fatalf("cut at %d of %d it is taken", n, len(sealed))
		}
	}
	if _, err := OpenSealed(append(bytes.Clone(sealed), 0)); err == nil {
		t.Error("a byte too many is taken")
	}
	if none, err := OpenSealed((*Book)(nil).AppendSealed(nil)); err != nil || none.Lookup("openai", "x", day).Known() {
		t.Error("no book", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(`{"version":"v","effective":"2026-01-01","source":"s","models":[{"provider":"p","model":"m","rates":{"input":1e-3}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := Parse("f", text)
		if err != nil {
			return
		}
		written := got.AppendYAML(nil)
		again, err := Parse("g", written)
		if err != nil || !bytes.Equal(again.AppendYAML(nil), written) {
			t.Fatalf("%v\n%s", err, written)
		}
	})
}

func FuzzImport(f *testing.F) {
	for _, name := range []string{"litellm.json", "modelsdev.json"} {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o := ImportOptions{Version: "v", Effective: day, Source: "s", Free: true}
		for _, imp := range []func([]byte, ImportOptions) (Imported, error){ImportLiteLLM, ImportModelsDev} {
			got, err := imp(text, o)
			if err != nil {
				if strings.Contains(err.Error(), "cannot be read back") {
					t.Fatal(err)
				}
				continue
			}
			if len(got.Table.Models) == 0 {
				t.Fatal("an empty table is taken")
			}
		}
	})
}

func FuzzOpenSealed(f *testing.F) {
	own, err := Parse("p.yaml", []byte(table))
	if err != nil {
		f.Fatal(err)
	}
	b, err := NewBook(own)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.AppendSealed(nil))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		b, err := OpenSealed(sealed)
		if err != nil {
			return
		}
		b.Lookup("openai", "local-1", day)
	})
}
