// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// familyHost is a host of the table of providers that speaks a built dialect but is
// nobody's main host: agents reach it by a Provider document only, which names it in
// hosts or has its base URL there.
type familyHost struct {
	host     string
	prefixes []string // each stands for the dialect's "/v1" there; the longest first
}

// openAIFamily are those that speak OpenAI's dialect. Paths: the pages of each provider
// on its OpenAI-compatible API. What they have beyond the dialect is judged wherever a
// request goes (openAIRules of pkg/inference); what they lack they say themselves.
var openAIFamily = []familyHost{
	{"ai-gateway.vercel.sh", []string{"/v1"}},
	{"api.cerebras.ai", []string{"/v1"}},
	{"api.cohere.ai", []string{"/compatibility/v1"}},
	{"api.cohere.com", []string{"/compatibility/v1"}},
	{"api.deepinfra.com", []string{"/v1/openai"}},
	{"api.deepseek.com", []string{"/beta", "/v1", ""}},
	{"api.fireworks.ai", []string{"/inference/v1"}},
	{"api.groq.com", []string{"/openai/v1"}},
	{"api.hyperbolic.xyz", []string{"/v1"}},
	{"api.minimax.io", []string{"/v1"}},
	{"api.mistral.ai", []string{"/v1"}},
	{"api.moonshot.ai", []string{"/v1"}},
	{"api.moonshot.cn", []string{"/v1"}},
	{"api.novita.ai", []string{"/openai/v1", "/v3/openai"}},
	{"api.perplexity.ai", []string{"/v1", ""}},
	{"api.sambanova.ai", []string{"/v1"}},
	{"api.together.ai", []string{"/v1"}},
	{"api.together.xyz", []string{"/v1"}},
	{"api.x.ai", []string{"/v1"}},
	{"api.z.ai", []string{"/api/coding/paas/v4", "/api/paas/v4"}},
	{"ark.cn-beijing.volces.com", []string{"/api/v3"}},
	{"codestral.mistral.ai", []string{"/v1"}},
	{"dashscope-intl.aliyuncs.com", []string{"/compatible-mode/v1"}},
	{"dashscope.aliyuncs.com", []string{"/compatible-mode/v1"}},
	{"eu.api.openai.com", []string{"/v1"}},
	{"inference.baseten.co", []string{"/v1"}},
	{"integrate.api.nvidia.com", []string{"/v1"}},
	{"ollama.com", []string{"/v1"}},
	{"open.bigmodel.cn", []string{"/api/coding/paas/v4", "/api/paas/v4"}},
	{"openrouter.ai", []string{"/api/v1"}},
	{"router.huggingface.co", []string{"/v1"}},
	{"us.api.openai.com", []string{"/v1"}},
}

// FamilyPrefixes are the path prefixes of a canonical host that stand for "/v1" of the
// OpenAI dialect, the longest first; ok is false for a host that is none of the family.
func FamilyPrefixes(host string) (prefixes []string, ok bool) {
	for i := range openAIFamily {
		if f := &openAIFamily[i]; f.host == host {
			return f.prefixes, true
		}
	}
	return nil, false
}

// familyReason is the refusal where no document names a host of the family.
func familyReason(host string) string {
	return "agents reach " + host + " by a Provider document only, and none that this node has names it: the operator can add one with dialect: " + DialectOpenAI + " and hosts: [" + host + "]"
}

// MainHost is where agents address a dialect where nothing else is said.
func MainHost(dialect string) string { return mainHost(dialect) }

// speaks is the dialect of a host of the family, "" for any other host.
func speaks(host string) string {
	if _, ok := FamilyPrefixes(host); ok {
		return DialectOpenAI
	}
	return ""
}

// familyNote is what the reference says of a host of the family.
func familyNote(host string) string {
	prefixes, ok := FamilyPrefixes(host)
	if !ok {
		return ""
	}
	var shown []string
	for _, p := range prefixes {
		shown = append(shown, "`"+p+"/...`")
	}
	return DialectOpenAI + " at " + strings.Join(shown, " or ") + ", with a Provider that names the host"
}
