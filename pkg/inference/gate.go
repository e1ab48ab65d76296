// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"math"
	"slices"
	"strconv"

	"github.com/ringfence/ringfence/pkg/policy"
)

// need is what a request needs of a model, as far as documents say what one has.
type need struct {
	features policy.Features
	input    uint64 // tokens, estimated
	output   uint64 // tokens that it asks for, 0 = as many as there are
}

// outputKeys are the members in which dialects say how many tokens may come out.
var outputKeys = []string{"max_tokens", "max_completion_tokens", "max_output_tokens"}

// schemaKeys are those in which they say what the answer has to look like.
var schemaKeys = []string{"response_format", "output_config", "text"}

// needs reads them from the body.
func (x *exchange) needs() (n need) {
	t := &x.tape
	bounded := func(c candidate) bool {
		e := c.prov.Entry(c.model)
		return e != nil && (e.Declared || e.Context != 0 || e.MaxOutput != 0)
	}
	if !x.route.model || len(t.nodes) == 0 || !slices.ContainsFunc(x.list, bounded) {
		return n
	}
	n.input = requestTokens(t)
	n.output = t.outputAsked()
	if x.d.name == geminiName {
		n.features = t.geminiFeatures()
		return n
	}
	if i, ok := t.member(0, "tools"); ok && t.hasChildren(i) {
		n.features |= policy.FeatureTools
	}
	for _, k := range schemaKeys {
		if i, ok := t.member(0, k); ok && t.namesSchema(i) {
			n.features |= policy.FeatureStructured
		}
	}
	if t.hasImage() {
		n.features |= policy.FeatureVision
	}
	return n
}

// outputAsked is how many tokens of output the request asks for; 0 where it does
// not say.
func (t *tape) outputAsked() (n uint64) {
	for _, k := range outputKeys {
		if i, ok := t.member(0, k); ok {
			n = max(n, t.count(i))
		}
	}
	if i := t.geminiConfig("maxoutputtokens"); i != 0 {
		n = max(n, t.count(i))
	}
	return n
}

// outputNames are the members in which an operation is told how many tokens may come
// out, by the one of them that is added where there is none. Chat completions have a
// former name besides.
func outputNames(output string) []string {
	if output == "max_completion_tokens" {
		return []string{"max_tokens", output}
	}
	return []string{output}
}

// outputHeld is what the operation's own members hold the output to. 0 where they do
// not, or one of them is no plain number: readers may take "1e5" for one.
func (t *tape) outputHeld(output string) (n uint64) {
	if output == "" || output == geminiOutput {
		if i := t.geminiConfig("maxoutputtokens"); i != 0 && output != "" {
			n = t.count(i)
		}
		return n
	}
	for _, k := range outputNames(output) {
		if i, ok := t.member(0, k); ok && t.nodes[i].kind != kindNull {
			if t.count(i) == 0 {
				return 0
			}
			n = max(n, t.count(i))
		}
	}
	return n
}

// oddChoices says whether the number of answers is asked for in a form that choices
// does not count and some readers do: "1e2", or digits in a string.
func (t *tape) oddChoices() bool {
	list := []uint32{t.geminiConfig("candidatecount")}
	for _, k := range []string{"n", "best_of"} {
		i, _ := t.member(0, k)
		list = append(list, i)
	}
	return slices.ContainsFunc(list, func(i uint32) bool { return i != 0 && t.nodes[i].kind != kindNull && t.count(i) == 0 })
}

// goesOn says whether the request goes on from an answer that its provider stored.
func (t *tape) goesOn() bool {
	i, ok := t.member(0, "previous_response_id")
	return ok && t.nodes[i].kind != kindNull
}

// choices is how many answers the request asks for at once, each with as many tokens
// as it lets come out: OpenAI's "n" and "best_of", one for each of several prompts,
// Gemini's "candidateCount".
func (t *tape) choices() uint64 {
	n := uint64(1)
	for _, k := range []string{"n", "best_of"} {
		if i, ok := t.member(0, k); ok {
			n = max(n, t.loosely(i))
		}
	}
	if i := t.geminiConfig("candidatecount"); i != 0 {
		n = max(n, t.loosely(i))
	}
	prompts := uint64(0)
	if i, ok := t.member(0, "prompt"); ok && t.nodes[i].kind == kindArray {
		t.children(i, func(c uint32) bool {
			if k := t.nodes[c].kind; k == kindString || k == kindArray {
				prompts++
			}
			return true
		})
	}
	return n * max(1, prompts)
}

// estimateSlack: an estimate may be so many times what a tokenizer counts. What is
// closer to a model's context than that is asked: its provider knows.
const estimateSlack = 2

// unmet says what of it a candidate does not have, for people; "" if nothing.
func (n *need) unmet(c *candidate) string {
	e := c.prov.Entry(c.model)
	switch {
	case e == nil:
		return ""
	case e.Declared && n.features&^e.Features != 0:
		return "it has no " + (n.features &^ e.Features).Names()[0]
	case e.Context != 0 && n.input/estimateSlack+n.output > uint64(e.Context):
		return "the request is about " + strconv.FormatUint(n.input+n.output, 10) + " tokens long, and its context is " + strconv.FormatUint(uint64(e.Context), 10)
	case e.MaxOutput != 0 && n.output > uint64(e.MaxOutput):
		return "the request asks for " + strconv.FormatUint(n.output, 10) + " tokens of output, and it gives at most " + strconv.FormatUint(uint64(e.MaxOutput), 10)
	}
	return ""
}

// count is a number that is a whole one, 0 for anything else.
func (t *tape) count(i uint32) uint64 {
	n := &t.nodes[i]
	v, err := strconv.ParseUint(string(t.src[n.start:n.end]), 10, 40)
	if err != nil {
		return 0
	}
	return v
}

// loosely is count also of what some servers take for a whole number: 10.0, 1e1, and
// "10", as the JSON mapping of Protocol Buffers has it. It is for what is only counted.
func (t *tape) loosely(i uint32) uint64 {
	s, ok := t.text(i)
	if !ok {
		s = string(t.src[t.nodes[i].start:t.nodes[i].end])
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v < 1<<40) {
		return 0
	}
	return uint64(math.Ceil(v))
}

func (t *tape) hasChildren(i uint32) (has bool) {
	t.children(i, func(uint32) bool { has = true; return false })
	return has
}

// namesSchema says whether an output format asks for a JSON schema, in it or in its
// "format".
func (t *tape) namesSchema(i uint32) bool {
	for _, k := range []string{"json_schema", "schema"} {
		if _, ok := t.member(i, k); ok {
			return true
		}
	}
	if f, ok := t.member(i, "format"); ok {
		return t.namesSchema(f)
	}
	return false
}

// imageTypes are the values of "type" of parts that a model has to see.
var imageTypes = [][]byte{[]byte(`"image_url"`), []byte(`"input_image"`), []byte(`"image"`)}

// hasImage says whether a part of the request is an image.
func (t *tape) hasImage() bool {
	for i := range t.nodes {
		n := &t.nodes[i]
		if n.kind != kindString || string(t.src[n.keyStart:n.keyEnd]) != "type" {
			continue
		}
		for _, w := range imageTypes {
			if string(t.src[n.start:n.end]) == string(w) {
				return true
			}
		}
	}
	return false
}
