// SPDX-License-Identifier: Apache-2.0

package price

import (
	"strconv"
	"strings"
)

// liteLLMKinds are the names of providers that differ from the kinds here. What is
// not in the table keeps its name, up to a "-" for vertex_ai-*.
var liteLLMKinds = map[string]string{
	"text-completion-openai": "openai", "bedrock_converse": "bedrock", "bedrock_mantle": "bedrock",
	"azure_text": "azure", "azure_ai": "azure", "vertex_ai": "vertex", "vertex_ai_beta": "vertex",
}

// liteLLMFields are the prices that are taken, in dollars for one.
var liteLLMFields = map[string]Unit{
	"input_cost_per_token":                      Input,
	"cache_read_input_token_cost":               CachedInput,
	"cache_creation_input_token_cost":           CacheWrite5m,
	"cache_creation_input_token_cost_above_1hr": CacheWrite1h,
	"input_cost_per_audio_token":                AudioInput,
	"input_cost_per_image_token":                ImageInput,
	"output_cost_per_token":                     Output,
	"output_cost_per_reasoning_token":           Reasoning,
	"output_cost_per_audio_token":               AudioOutput,
	"output_cost_per_image_token":               ImageOutput,
	"output_cost_per_image":                     Image,
	"input_cost_per_request":                    Request,
}

// liteLLMOther are the ends of fields with prices of another way of calling, which
// never hold for a plain call.
var liteLLMOther = []string{"_priority", "_flex", "_batches", "_batch"}

// ImportLiteLLM reads LiteLLM's model_prices_and_context_window.json: an object of
// models, whose fields named *cost* are dollars for one unit. The form is that of its
// published schema (model_prices_and_context_window.schema.json, which asks readers
// to ignore fields they do not know) and of its entry sample_spec. Prices finer than
// a [Rate] are rounded up.
func ImportLiteLLM(text []byte, o ImportOptions) (Imported, error) {
	im, err := newImporter(o)
	if err != nil {
		return Imported{}, err
	}
	var list map[string]any
	if err := decodeList(text, &list); err != nil {
		return Imported{}, err
	}
	for _, name := range sortedKeys(list) {
		if name != "sample_spec" && name != "fallback_generalizations" {
			im.liteLLM(name, list[name])
		}
	}
	return im.done()
}

func (im *importer) liteLLM(listed string, v any) {
	entry, _ := v.(map[string]any)
	provider, _ := entry["litellm_provider"].(string)
	if provider == "" {
		im.skip(listed, "it names no provider")
		return
	}
	m := Model{Provider: provider, Name: strings.TrimPrefix(listed, provider+"/"), MaxInput: tokens(entry["max_input_tokens"]), MaxOutput: tokens(entry["max_output_tokens"])}
	if kind, ok := liteLLMKinds[provider]; ok {
		m.Provider = kind
	} else if strings.HasPrefix(provider, "vertex_ai") {
		m.Provider = "vertex"
	}
	for _, prefix := range []string{"vertex_ai/", "bedrock/", "azure_ai/", "azure/"} {
		m.Name = strings.TrimPrefix(m.Name, prefix)
	}
	if !im.wants(m.Provider) {
		return
	}
	var left []string
	tiers := map[uint64]*Rates{}
	for _, field := range sortedKeys(entry) {
		text, isNumber := number(entry[field])
		if field == "search_context_cost_per_query" {
			text, isNumber = dearestSearch(entry[field])
		}
		if !isNumber || !strings.Contains(field, "cost") || isOther(field) {
			continue
		}
		rates, unit, ok := liteLLMUnit(field, entry, &m, tiers)
		rate, err := parseRate(text, perOne, true)
		if !ok || err != nil {
			if rate != 0 || err != nil {
				left = append(left, field)
			}
			continue
		}
		rates.Set(unit, rate)
	}
	for over, r := range tiers {
		m.Tiers = append(m.Tiers, Tier{over, *r})
	}
	im.add(listed, m, left)
}

// liteLLMUnit finds what a field is the price of.
func liteLLMUnit(field string, entry map[string]any, m *Model, tiers map[uint64]*Rates) (*Rates, Unit, bool) {
	if field == "search_context_cost_per_query" {
		return &m.Rates, WebSearch, true
	}
	if field == "input_cost_per_query" && entry["mode"] == "rerank" {
		return &m.Rates, Request, true
	}
	if u, ok := liteLLMFields[field]; ok {
		return &m.Rates, u, true
	}
	base, over, ok := cutTier(field)
	u, known := liteLLMFields[base]
	n, err := strconv.ParseUint(over, 10, 20)
	if !ok || !known || err != nil || n == 0 {
		return nil, 0, false
	}
	n *= 1000
	if tiers[n] == nil {
		tiers[n] = &Rates{}
	}
	return tiers[n], u, true
}

// cutTier takes "_above_200k_tokens" from the end of a field, which then holds from
// that size of the prompt on.
func cutTier(field string) (base, over string, ok bool) {
	rest, ok := strings.CutSuffix(field, "k_tokens")
	i := strings.LastIndex(rest, "_above_")
	if !ok || i < 0 {
		return "", "", false
	}
	return rest[:i], rest[i+len("_above_"):], true
}

func isOther(field string) bool {
	for _, end := range liteLLMOther {
		if strings.HasSuffix(field, end) {
			return true
		}
	}
	return false
}

// dearestSearch is the highest of the prices of a search: which size a call asked
// for is not counted.
func dearestSearch(v any) (text string, ok bool) {
	sizes, _ := v.(map[string]any)
	var most Rate
	for _, size := range sortedKeys(sizes) {
		s, isNumber := number(sizes[size])
		if r, err := parseRate(s, perOne, true); isNumber && err == nil && (!ok || r > most) {
			text, ok, most = s, true, r
		}
	}
	return text, ok
}
