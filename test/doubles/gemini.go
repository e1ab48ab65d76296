// SPDX-License-Identifier: Apache-2.0

package doubles

import "strings"

// geminiShapes are the answers of the Gemini API by method and verb; "models" and
// "model" stand for the list and for one of it. Token figures are those of shapes.
var geminiShapes = map[string]func(a answer) []string{
	"POST generateContent":       generateShape,
	"POST streamGenerateContent": generateShape,
	"POST countTokens":           func(answer) []string { return []string{`{"totalTokens":11}`} },
	"POST embedContent":          func(answer) []string { return []string{js(obj{"embedding": obj{"values": []float64{0.5, -0.25}}})} },
	"POST batchEmbedContents": func(answer) []string {
		return []string{js(obj{"embeddings": []obj{{"values": []float64{0.5, -0.25}}}})}
	},
	"GET models": func(answer) []string { return []string{js(obj{"models": []obj{geminiModel()}})} },
	"GET model":  func(answer) []string { return []string{js(geminiModel())} },
}

func geminiModel() obj {
	return obj{"name": "models/double-1", "version": "1", "displayName": "Double 1", "supportedGenerationMethods": []string{"generateContent"}}
}

// geminiCall takes a path of the Gemini API, or of a model of a publisher on Vertex,
// to pieces; without a verb it is none.
func geminiCall(path string) (model, verb string) {
	_, rest, ok := strings.Cut(path, "/models/")
	switch {
	case path == "/v1beta/models":
		return "", "models"
	case !ok || strings.Contains(rest, "/"):
		return "", ""
	}
	if model, verb, ok = strings.Cut(rest, ":"); !ok && strings.HasPrefix(path, "/v1beta/") {
		verb = "model"
	}
	return model, verb
}

func generateShape(a answer) []string {
	response := func(text string, last bool) obj {
		c := obj{"content": obj{"role": "model", "parts": []obj{{"text": text}}}, "index": 0}
		r := obj{"candidates": []obj{c}, "modelVersion": a.model, "responseId": "resp_double", "xUnknown": obj{"kept": true}}
		if last {
			c["finishReason"] = "STOP"
		}
		if a.usage {
			u := obj{"promptTokenCount": 11, "cachedContentTokenCount": 3, "totalTokenCount": 11}
			if last {
				u["candidatesTokenCount"], u["totalTokenCount"] = 7, 18
			}
			r["usageMetadata"] = u
		}
		return r
	}
	if !a.stream {
		return []string{js(response(a.text, true))}
	}
	var out []string
	words := strings.SplitAfter(a.text, " ")
	for i, word := range words {
		out = append(out, "data: "+js(response(word, i == len(words)-1))+"\r\n\r\n") // as Google's front ends separate events
	}
	return out
}
