// SPDX-License-Identifier: Apache-2.0

package policy

// ProviderHost is a host at which agents address a model provider. No egress
// rule ever matches it; an inference allow opens it when its dialect is built.
type ProviderHost struct {
	Host     HostPattern
	Port     uint16 // where it listens
	Dialect  string // one of Dialects, "" = not built in this version
	Provider string // name for people

	reason string // of the refusal where it is not answered; "" = the common one
}

// Supported reports whether calls to the host are answered.
func (h ProviderHost) Supported() bool { return h.Dialect != "" }

// unsupported is why calls to the host are not answered.
func (h ProviderHost) unsupported() string {
	if h.reason != "" {
		return h.reason
	}
	return reasonUnsupported
}

// Name is the host as text, a pattern for some.
func (h ProviderHost) Name() string { return h.Host.String() }

// knownProviders is the table: host, dialect, name. A host may be a pattern.
// An entry without a dialect is refused with a word, so that a key in the
// sandbox cannot be used there behind Ringfence's back.
var knownProviders = [][3]string{
	{"api.openai.com", DialectOpenAI, "OpenAI"},
	{"api.anthropic.com", DialectAnthropic, "Anthropic"},

	{"eu.api.openai.com", "", "OpenAI (EU)"},
	{"us.api.openai.com", "", "OpenAI (US)"},
	{"*.openai.azure.com", "", "Azure OpenAI"},
	{"*.cognitiveservices.azure.com", "", "Azure AI"},
	{"*.services.ai.azure.com", "", "Azure AI Foundry"},
	{"**.models.ai.azure.com", "", "Azure AI models"},
	{"models.inference.ai.azure.com", "", "GitHub Models"},
	{"models.github.ai", "", "GitHub Models"},
	{"**.githubcopilot.com", "", "GitHub Copilot"},
	{"generativelanguage.googleapis.com", DialectGemini, "Google Gemini"},
	{"aiplatform.googleapis.com", "", "Google Vertex AI"},
	{"cloudcode-pa.googleapis.com", "", "Google Gemini Code Assist"},
	{"api.mistral.ai", "", "Mistral"},
	{"codestral.mistral.ai", "", "Mistral Codestral"},
	{"api.groq.com", "", "Groq"},
	{"openrouter.ai", "", "OpenRouter"},
	{"api.deepseek.com", "", "DeepSeek"},
	{"api.cohere.com", "", "Cohere"},
	{"api.cohere.ai", "", "Cohere"},
	{"api.x.ai", "", "xAI"},
	{"api.together.xyz", "", "Together AI"},
	{"api.together.ai", "", "Together AI"},
	{"api.fireworks.ai", "", "Fireworks AI"},
	{"api.perplexity.ai", "", "Perplexity"},
	{"api.cerebras.ai", "", "Cerebras"},
	{"api.sambanova.ai", "", "SambaNova"},
	{"api.replicate.com", "", "Replicate"},
	{"api-inference.huggingface.co", "", "Hugging Face"},
	{"router.huggingface.co", "", "Hugging Face"},
	{"**.endpoints.huggingface.cloud", "", "Hugging Face endpoints"},
	{"integrate.api.nvidia.com", "", "NVIDIA NIM"},
	{"api.ai21.com", "", "AI21"},
	{"api.moonshot.ai", "", "Moonshot"},
	{"api.moonshot.cn", "", "Moonshot"},
	{"api.minimax.io", "", "MiniMax"},
	{"api.z.ai", "", "Z.ai"},
	{"open.bigmodel.cn", "", "Zhipu"},
	{"dashscope.aliyuncs.com", "", "Alibaba Model Studio"},
	{"dashscope-intl.aliyuncs.com", "", "Alibaba Model Studio"},
	{"ark.cn-beijing.volces.com", "", "Volcengine Ark"},
	{"api.deepinfra.com", "", "DeepInfra"},
	{"api.novita.ai", "", "Novita"},
	{"api.hyperbolic.xyz", "", "Hyperbolic"},
	{"inference.baseten.co", "", "Baseten"},
	{"ai-gateway.vercel.sh", "", "Vercel AI Gateway"},
	{"gateway.ai.cloudflare.com", "", "Cloudflare AI Gateway"},
	{"api.portkey.ai", "", "Portkey"},
	{"ollama.com", "", "Ollama cloud"},
	{"api.voyageai.com", "", "Voyage AI"},
	{"api.jina.ai", "", "Jina AI"},
}

// regionalProviders are hosts whose region sits inside a label or in the
// middle, which a host pattern cannot say: the name is between the two parts.
var regionalProviders = []struct{ prefix, suffix, provider string }{
	{"bedrock-runtime.", ".amazonaws.com", "Amazon Bedrock"},
	{"bedrock-runtime-fips.", ".amazonaws.com", "Amazon Bedrock"},
	{"bedrock-agent-runtime.", ".amazonaws.com", "Amazon Bedrock"},
	{"bedrock-mantle.", ".api.aws", "Amazon Bedrock"},
	{"bedrock-runtime.", ".api.aws", "Amazon Bedrock"},
	{"bedrock-runtime.", ".amazonaws.com.cn", "Amazon Bedrock"},
	{"", "-aiplatform.googleapis.com", "Google Vertex AI"},
	{"aiplatform.", ".rep.googleapis.com", "Google Vertex AI"},
}
