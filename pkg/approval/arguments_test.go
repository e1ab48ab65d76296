// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPatternsAreRead(t *testing.T) {
	for text, want := range map[string]Pattern{"max_uses=*": {"max_uses", "*"}, "a.0.b=x=y": {"a.0.b", "x=y"}, "k=": {"k", ""}, "a%2Eb=1": {"a%2Eb", "1"}} {
		if p, err := ParsePattern(text); err != nil || p != want || p.String() != text {
			t.Errorf("%q: %+v %v", text, p, err)
		}
	}
	for _, text := range []string{"", "*", "max_uses", "=x", ".a=x", "a..b=x", "a.=x", "a[]=x", "a b=x", "a*=x", "a=\xff", "a=" + strings.Repeat("x", MaxValue+1), strings.Repeat("x", MaxPath+1) + "=x"} {
		if p, err := ParsePattern(text); !errors.Is(err, ErrTerms) {
			t.Errorf("%q: %+v %v", text, p, err)
		}
	}
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, text string
		is         bool
	}{
		{"", "", true}, {"", "x", false}, {"*", "", true}, {"*", "a\nb", true}, {"1*", "12", true}, {"1*", "21", false}, {"*2", "12", true}, {"*2", "21", false},
		{"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "a-b-b-c", true}, {"a*b*c", "a-c-b", false}, {"*.example.com", "x.example.com", true}, {"*.example.com", "x.example.com.evil", false},
		{"a?", "ab", false}, {"[ab]", "a", false}, {"**", "", true}, {"*b*b", "b", false},
	} {
		if globbed(c.glob, c.text) != c.is {
			t.Errorf("%q is %q: %v", c.text, c.glob, !c.is)
		}
	}
}

// TestWhatAnApproverFrees: nothing that was not said. The approver gets words
// about what cannot be given.
func TestWhatAnApproverFrees(t *testing.T) {
	c := someCall(0)
	c.Args = append([]Argument{{Path: "a[]", Hash: c.Arguments}}, c.Args...)
	_, changed, err := askOne(&c, DefaultLimits, start)
	if err != nil {
		t.Fatal(err)
	}
	give := func(tt Terms) (Request, error) { return changed[0].Vote(people[0], true, tt, "", start) }
	hour := func(args ...Pattern) Terms {
		return Terms{Lasts: LastsFor, For: time.Hour, Covers: CoversArguments, Args: args}
	}
	for text, tt := range map[string]Terms{
		"the nearest is amount":       hour(Pattern{"amont", "*"}),
		`"10", which is not 2*`:       hour(Pattern{"amount", "2*"}),
		"only key=* can be given":     hour(Pattern{"key", "k*"}),
		"two patterns":                hour(Pattern{"amount", "*"}, Pattern{"amount", "1*"}),
		"is no path":                  hour(Pattern{"a[]", "*"}),
		"for the life of the sandbox": {Lasts: LastsFor, For: time.Hour, Args: []Pattern{{"amount", "*"}}},
		"once is for the call":        {Covers: CoversArguments, Args: []Pattern{{"amount", "*"}}},
	} {
		if _, err := give(tt); !errors.Is(err, ErrTerms) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	r, err := give(hour(Pattern{"amount", "1*"}, Pattern{"key", "*"}))
	if err != nil || r.Grant.Says() != "for 1h0m0s: this target with amount=1* and key=*, all other arguments the same" {
		t.Fatalf("%v %s", err, r.Grant.Says())
	}
	for name, change := range map[string]struct {
		to  func(*Call)
		yes bool
	}{
		"the same":                 {func(*Call) {}, true},
		"what is freed":            {func(c *Call) { c.Args[1] = arg("amount", "19") }, true},
		"another key":              {func(c *Call) { c.Args[2].Hash = c.Args[1].Hash }, true},
		"a key that is shown":      {func(c *Call) { c.Args[2] = arg("key", "x") }, true},
		"what the glob is not":     {func(c *Call) { c.Args[1] = arg("amount", "20") }, false},
		"what is not kept":         {func(c *Call) { c.Args[1] = Argument{Path: "amount", Kind: "string", Hash: c.Args[1].Hash} }, false},
		"another that is named no": {func(c *Call) { c.Args[3] = arg("to", "shop-b") }, false},
		"one more":                 {func(c *Call) { c.Args = append(c.Args, arg("zoo", "x")) }, false},
		"one less":                 {func(c *Call) { c.Args = c.Args[:3] }, false},
		"one for another":          {func(c *Call) { c.Args[3] = arg("too", "shop-a") }, false},
		"an object":                {func(c *Call) { c.Args[1] = Argument{Path: "amount{}", Hash: c.Args[1].Hash} }, false},
		"a list":                   {func(c *Call) { c.Args[1] = Argument{Path: "amount[]", Hash: c.Args[1].Hash} }, false},
		"a number":                 {func(c *Call) { c.Args[1] = Argument{"amount", "number", c.Arguments, "19", true} }, false},
		"a number not shown":       {func(c *Call) { c.Args[2] = Argument{Path: "key", Kind: "number", Hash: c.Arguments} }, false},
		"nothing, where any text":  {func(c *Call) { c.Args[2] = Argument{"key", "null", c.Arguments, "null", true} }, false},
		"an object, where any":     {func(c *Call) { c.Args[2] = Argument{Path: "key{}", Hash: c.Arguments} }, false},
		"nothing listed":           {func(c *Call) { c.Args, c.Listed = nil, false }, false},
		"another definition":       {func(c *Call) { c.Definition = c.Arguments }, false},
		"another target":           {func(c *Call) { c.Target += "x" }, false},
	} {
		d := c
		d.Args = slices.Clone(c.Args)
		d.Arguments = strings.Repeat("9", 64) // of a whole request it is another
		if change.to(&d); d.Valid() != nil {
			t.Errorf("%s: %v", name, d.Valid())
		}
		if r.covers(&d) != change.yes {
			t.Errorf("%s: covered is %v", name, !change.yes)
		}
	}
}

// TestFreeingANameFreesNoObject: who lets an agent use whatever container by its name
// has not let it make one.
func TestFreeingANameFreesNoObject(t *testing.T) {
	sum := someCall(0).Arguments
	approved := []Argument{{"container", "string", sum, "", false}}
	any := []Pattern{{"container", "*"}}
	other := strings.Repeat("8", 64)
	for name, c := range map[string]struct {
		now Argument
		yes bool
	}{
		"another name":            {Argument{"container", "string", other, "cntr_2", true}, true},
		"a whole object":          {Argument{"container{}", "", other, "", false}, false},
		"a list":                  {Argument{"container[]", "", other, "", false}, false},
		"a number":                {Argument{"container", "number", other, "1", true}, false},
		"of no kind, as an older": {Argument{"container", "", other, "", false}, false},
	} {
		if alike(approved, []Argument{c.now}, any) != c.yes {
			t.Errorf("%s: free is %v", name, !c.yes)
		}
	}
	if old := []Argument{{"container", "", sum, "", false}}; alike(old, []Argument{{"container", "", other, "", false}}, any) || alike(old, []Argument{{"container", "string", other, "x", true}}, any) {
		t.Error("what was kept without a kind is free")
	}
}

func TestArgumentsThatAreNone(t *testing.T) {
	for name, spoil := range map[string]func(c *Call){
		"not in order":   func(c *Call) { c.Args[0], c.Args[1] = c.Args[1], c.Args[0] },
		"twice":          func(c *Call) { c.Args[1] = c.Args[0] },
		"no hash":        func(c *Call) { c.Args[0].Hash = "" },
		"text not kept":  func(c *Call) { c.Args[1].Text = "k1" },
		"a value of []":  func(c *Call) { c.Args[0] = arg("amount[]", "x") },
		"a long text":    func(c *Call) { c.Args[0].Text = strings.Repeat("x", MaxValue+1) },
		"no kind":        func(c *Call) { c.Args[0].Kind = "" },
		"another kind":   func(c *Call) { c.Args[0].Kind = "object" },
		"a kind of {}":   func(c *Call) { c.Args[1] = Argument{Path: "amount{}", Kind: "string", Hash: c.Args[1].Hash} },
		"no path":        func(c *Call) { c.Args[0].Path = "" },
		"not all listed": func(c *Call) { c.Listed = false },
		"too many":       func(c *Call) { c.Args = slices.Repeat(c.Args, MaxArguments) },
	} {
		c := someCall(0)
		c.Args = slices.Clone(c.Args)
		if c.Valid() != nil {
			t.Fatal("control:", c.Valid())
		}
		if spoil(&c); !errors.Is(c.Valid(), ErrCall) {
			t.Errorf("%s: %v", name, c.Valid())
		}
	}
}

// FuzzPattern: what is read is written back, and a glob is what the same
// expression in another language is.
func FuzzPattern(f *testing.F) {
	f.Add("max_uses=*", "5")
	f.Add("a.0=*.example.com", "x.example.com")
	f.Add("a%2Eb=a*b*c", "abbc")
	f.Fuzz(func(t *testing.T, text, value string) {
		p, err := ParsePattern(text)
		if err != nil {
			return
		}
		if p.String() != text || p.Valid() != nil || strings.Count(p.Path, "=") > 0 {
			t.Fatalf("%q is %+v", text, p)
		}
		want := regexp.MustCompile("^(?s:" + strings.ReplaceAll(regexp.QuoteMeta(p.Glob), `\*`, ".*") + ")$")
		value = strings.ToValidUTF8(value, "")
		if globbed(p.Glob, value) != want.MatchString(value) {
			t.Fatalf("%q on %q", p.Glob, value)
		}
	})
}
