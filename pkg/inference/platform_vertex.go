// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"strings"
)

// vertex is Google's Vertex AI with Anthropic's and Google's models. The base URL holds
// project and location: https://HOST/v1/projects/PROJECT/locations/LOCATION. Sources:
// Vertex AI REST reference (endpoints.rawPredict, streamRawPredict, generateContent),
// Anthropic's page "Claude on Vertex AI", anthropic-sdk-go v1.84 package vertex, genai
// v1.77.
//
// The secret is the JSON key of a service account; see googleTokens.
var vertex = platform{name: "vertex", dialects: []string{"anthropic", geminiName}, address: addressVertex, authorize: authorizeVertex, answer: answerVertex}

const vertexVersion = "vertex-2023-10-16"

var (
	vertexPath = regexp.MustCompile(`^/v1(beta1)?/projects/[A-Za-z0-9:._-]+/locations/[a-z0-9-]+$`)

	errNoRegion = errors.New("the region is not known; its document can say it with region")
)

// vertexVerbs are the verbs of the Gemini API that Vertex has in the same form.
var vertexVerbs = map[string]bool{":generateContent": true, ":streamGenerateContent": true, ":countTokens": true}

func addressVertex(o *outbound) *refusal {
	if !vertexPath.MatchString(o.base.Path) {
		return platformBase("vertex", "https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION")
	}
	if o.d.name == geminiName {
		return addressVertexGemini(o)
	}
	if ref := o.noOwnMembers(); ref != nil {
		return ref
	}
	const models = "/publishers/anthropic/models/"
	add := `"anthropic_version":"` + vertexVersion + `"`
	switch {
	case o.route.path == "/v1/messages/count_tokens": // it names its model in the body
		o.path, o.body = models+"count-tokens:rawPredict", o.tape.withMembers(add)
	case o.route.path != "/v1/messages":
		return o.lacks("vertex")
	case o.stream:
		o.path, o.body = models+escapeSegment(o.model)+":streamRawPredict", o.tape.withMembers(add, o.topMember("model"))
	default:
		o.path, o.body = models+escapeSegment(o.model)+":rawPredict", o.tape.withMembers(add, o.topMember("model"))
	}
	o.query = ""
	o.keep("Accept", "Content-Type", "User-Agent", "Anthropic-Beta")
	return nil
}

func addressVertexGemini(o *outbound) *refusal {
	verb := o.route.path[strings.LastIndexByte(o.route.path, ':')+1:]
	if !o.route.pathModel || !vertexVerbs[":"+verb] {
		return o.lacks("vertex")
	}
	if o.topMember("model") != 0 || o.tape.named(0, "generatecontentrequest") != 0 {
		return invalid(http.StatusBadRequest, "body", "the platform vertex takes the model from the path and no request inside of one", "Leave it out of the body")
	}
	o.path = "/publishers/google/models/" + escapeSegment(o.model) + ":" + verb
	o.keep("Accept", "Content-Type", "User-Agent", "X-Goog-Api-Client")
	return nil
}

func authorizeVertex(ctx context.Context, o *outbound, req *http.Request) ([]string, error) {
	token, err := o.token(ctx, o.key)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return []string{token}, nil
}

func answerVertex(o *outbound, resp *http.Response) {
	if resp.StatusCode == http.StatusUnauthorized {
		o.forget(o.key)
	}
	if resp.StatusCode >= 400 {
		o.ownError(resp, "")
	}
}
