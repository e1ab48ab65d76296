// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genai"
)

// geminiHarmless are the members of requests, as the official library has them, that
// ask the provider for nothing but an answer and hold no URI that it would fetch.
var geminiHarmless = strings.Fields(`
audio audioTimestamp audioTrackExtraction autoTruncate aspectRatio adaptationPhrases allowedFunctionNames automaticContinuation
behavior bitRate boolValue candidateCount category code codeExecutionResult compressionQuality consentAudio continuationToken customVocabulary
delivery description diarization displayName documentOcr duration echoTargetLanguage enableAffectiveDialog enableEnhancedCivicAnswers endOffset
executableCode fileData finished fps frequencyPenalty functionCall functionCallingConfig functionResponse generationConfig
id image imageConfig imageOutputOptions imageSize includeServerSideToolInvocations includeThoughts inlineData jsonPath
languageAuto languageCode languageCodes languageHints latLng latitude level logprobs longitude maxOutputTokens mediaProcessing mediaResolution method mimeType mode
multiSpeakerVoiceConfig name nullValue numTokens numberValue outcome output outputCompressionQuality outputDimensionality outputMimeType
partialArgs parts personGeneration prebuiltVoiceConfig presencePenalty prominentPeople replicatedVoiceConfig resolution responseFormat
responseLogprobs responseMimeType responseModalities retrievalConfig role safetySettings sampleRate scheduling seed serviceTier signature speaker speakerLabel
speakerVoiceConfigs speechConfig speechMetadata startOffset stopSequences store streamFunctionCallArguments stringValue style systemInstruction
targetLanguageCode taskType temperature text thinkingBudget thinkingConfig thinkingLevel thought thoughtSignature threshold title toolCall
toolConfig toolResponse toolType topK topP translationConfig audioTranscription audioTranscriptionConfig language
video videoMetadata voice voiceConfig voiceConsentSignature voiceName voiceSampleAudio willContinue word wordTimestamp words
`)

// TestEveryMemberOfTheGeminiLibraryIsKnown: one that a new version brings has to be
// looked at before it passes unseen.
func TestEveryMemberOfTheGeminiLibraryIsKnown(t *testing.T) {
	s := sdkWalk{t: t, seen: map[reflect.Type]bool{}, names: map[string]bool{}, tools: map[string]bool{}}
	for _, v := range []any{genai.Content{}, genai.GenerateContentConfig{}, genai.CountTokensConfig{}, genai.EmbedContentConfig{}} {
		s.walk(reflect.TypeOf(v))
	}
	if len(s.seen) < 40 {
		t.Errorf("only %d types were walked", len(s.seen))
	}
	for _, name := range geminiHarmless {
		if !s.names[name] {
			t.Errorf("the library has no member %q any more", name)
		}
	}
	for _, m := range geminiTools {
		if !s.tools[m.name] {
			t.Errorf("the library has no tool %q any more", m.name)
		}
	}
	for _, m := range geminiMembers {
		if !s.names[m.name] && m.name != "extraBody" && m.name != "data" { // in what is not walked
			t.Errorf("the library has no member %q any more", m.name)
		}
	}
}

type sdkWalk struct {
	t     *testing.T
	seen  map[reflect.Type]bool
	names map[string]bool
	tools map[string]bool
}

func (s *sdkWalk) walk(typ reflect.Type) {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct || s.seen[typ] || !strings.HasSuffix(typ.PkgPath(), "google.golang.org/genai") {
		return
	}
	s.seen[typ] = true
	isTool := typ == reflect.TypeFor[genai.Tool]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		key := strings.ToLower(name)
		if isTool {
			s.tools[name] = true
			m := geminiTools[key]
			if m == nil || m.name != name {
				s.t.Errorf("the tool %q is not in the table", name)
			} else if m.tool != "" {
				continue // decided as a whole
			}
			s.walk(f.Type)
			continue
		}
		s.names[name] = true
		switch m := geminiMembers[key]; {
		case m != nil && m.name == name:
			if m.kind == memberTools {
				s.walk(f.Type)
			}
		case slices.Contains(geminiHarmless, name):
			if hasURISuffix([]byte(key)) {
				s.t.Errorf("%s.%s is a URI and listed as harmless", typ.Name(), name)
			}
			s.walk(f.Type)
		default:
			s.t.Errorf("%s.%s is not known", typ.Name(), name)
		}
	}
}
