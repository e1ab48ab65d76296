// SPDX-License-Identifier: Apache-2.0

package price

import "slices"

// modelsDevKinds are the names of providers that differ from the kinds here.
var modelsDevKinds = map[string]string{
	"google": "gemini", "google-vertex": "vertex", "google-vertex-anthropic": "vertex", "amazon-bedrock": "bedrock",
}

// modelsDevFields are the members of "cost", in dollars for a million tokens.
var modelsDevFields = map[string]Unit{
	"input": Input, "cache_read": CachedInput, "cache_write": CacheWrite5m, "input_audio": AudioInput,
	"output": Output, "reasoning": Reasoning, "output_audio": AudioOutput,
}

// legacyTier is the bound that models.dev's "context_over_200k" names.
const legacyTier = 200_000

type modelsDevProvider struct {
	Models map[string]modelsDevModel `json:"models"`
}

type modelsDevModel struct {
	ID    string         `json:"id"`
	Cost  map[string]any `json:"cost"`
	Limit struct {
		Context any `json:"context"`
		Input   any `json:"input"`
		Output  any `json:"output"`
	} `json:"limit"`
}

// ImportModelsDev reads models.dev's api.json: an object of providers, each with an
// object of models, whose "cost" is in dollars for a million tokens and may have
// "tiers" by the size of the prompt ({..., tier: {type: "context", size: N}}), or the
// older "context_over_200k", which tiers replace. Prices finer than a [Rate] are
// rounded up.
func ImportModelsDev(text []byte, o ImportOptions) (Imported, error) {
	im, err := newImporter(o)
	if err != nil {
		return Imported{}, err
	}
	var list map[string]modelsDevProvider
	if err := decodeList(text, &list); err != nil {
		return Imported{}, err
	}
	for _, id := range sortedKeys(list) {
		kind := id
		if k, ok := modelsDevKinds[id]; ok {
			kind = k
		}
		if !im.wants(kind) {
			continue
		}
		models := list[id].Models
		for _, name := range sortedKeys(models) {
			m := models[name]
			im.modelsDev(id, kind, name, &m)
		}
	}
	return im.done()
}

func (im *importer) modelsDev(id, kind, name string, in *modelsDevModel) {
	m := Model{Provider: kind, Name: name, MaxInput: tokens(in.Limit.Input), MaxOutput: tokens(in.Limit.Output)}
	if m.MaxInput == 0 {
		m.MaxInput = tokens(in.Limit.Context)
	}
	left := modelsDevRates(in.Cost, &m.Rates, "tiers", "context_over_200k")
	tiers, _ := in.Cost["tiers"].([]any)
	for _, t := range tiers {
		entry, _ := t.(map[string]any)
		of, _ := entry["tier"].(map[string]any)
		size := tokens(of["size"])
		if of["type"] != "context" || size == 0 {
			left = append(left, "a tier that does not go by the context")
			continue
		}
		tier := Tier{ContextOver: size}
		left = append(left, modelsDevRates(entry, &tier.Rates, "tier")...)
		if !tier.Empty() {
			m.Tiers = append(m.Tiers, tier)
		}
	}
	if over, ok := in.Cost["context_over_200k"].(map[string]any); ok && len(tiers) == 0 {
		tier := Tier{ContextOver: legacyTier}
		left = append(left, modelsDevRates(over, &tier.Rates)...)
		if !tier.Empty() {
			m.Tiers = append(m.Tiers, tier)
		}
	}
	im.add(id+"/"+name, m, left)
}

// modelsDevRates takes the prices of one object, and names what it could not take.
func modelsDevRates(cost map[string]any, to *Rates, apart ...string) (left []string) {
	for _, field := range sortedKeys(cost) {
		text, isNumber := number(cost[field])
		unit, ok := modelsDevFields[field]
		rate, err := parseRate(text, perMillion, true)
		switch {
		case isNumber && ok && err == nil:
			to.Set(unit, rate)
		case slices.Contains(apart, field):
		default:
			left = append(left, field)
		}
	}
	return left
}
