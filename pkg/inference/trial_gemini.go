// SPDX-License-Identifier: Apache-2.0

package inference

// trialGenerate answers generateContent, and its stream in the form of server-sent
// events that the provider's host has.
func trialGenerate(x *exchange) [][]byte {
	in, out := x.trialUsage()
	id := trialID("trial_")
	response := func(text string, finish string, out uint64) fields {
		candidate := fields{"content": fields{"role": "model", "parts": []fields{{"text": text}}}, "index": 0}
		if finish != "" {
			candidate["finishReason"] = finish
		}
		return fields{"candidates": []fields{candidate}, "modelVersion": x.asked.model, "responseId": id,
			"usageMetadata": fields{"promptTokenCount": in, "candidatesTokenCount": out, "totalTokenCount": in + out,
				"promptTokensDetails": []fields{{"modality": "TEXT", "tokenCount": in}}}}
	}
	if !x.asked.stream {
		return object(response(x.trialText(), "STOP", out))
	}
	var events [][]byte
	pieces := deltas(x.trialText())
	for i, d := range pieces {
		finish := ""
		if i == len(pieces)-1 {
			finish = "STOP"
		}
		events = append(events, geminiEvent(response(d, finish, out)))
	}
	return events
}

func geminiEvent(v any) []byte {
	return append(append([]byte("data: "), mustJSON(v)...), "\r\n\r\n"...)
}

func trialGeminiCount(x *exchange) [][]byte {
	n := requestTokens(&x.tape)
	return object(fields{"totalTokens": n, "promptTokensDetails": []fields{{"modality": "TEXT", "tokenCount": n}}})
}

func geminiModelObject(id string) fields {
	return fields{"name": "models/" + id, "version": "trial", "displayName": "Ringfence trial provider (no model behind it)",
		"supportedGenerationMethods": []string{"generateContent", "countTokens"}}
}

func trialGeminiModels(*exchange) [][]byte {
	return object(fields{"models": []fields{geminiModelObject(trialModel)}})
}

func trialGeminiModel(x *exchange) [][]byte { return object(geminiModelObject(x.lastSegment())) }
