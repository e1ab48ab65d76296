// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"strings"
)

// dialects is the registration table: a new dialect is a new file and one
// line here. It is data and never changes at run time.
var dialects = []*dialect{&openAI, &anthropic, &gemini}

// dialect describes one wire format. Everything in it is read-only.
type dialect struct {
	name string
	// baseHasVersion says whether base URLs of this dialect, by its users'
	// convention, already hold the "/v1" that the paths below start with.
	baseHasVersion bool
	routes         []route
	closed         []closedPath
	version        map[string]string // headers of a request that was translated into it
	headers        []string          // request headers forwarded besides the common ones, lower case
	credentials    []string          // headers that carry the caller's credential, lower case
	// queryKeys are query parameters that carry the caller's credential, which is
	// the same as the header queryKeyHeader (lower case). They are never forwarded.
	queryKeys      []string
	queryKeyHeader string
	inject         func(h http.Header, key string)
	errorBody      func(e *refusal, status int, text string) []byte
	// streamError frames an error's body in the middle of a stream; nil: an event
	// called "error".
	streamError func(body []byte) []byte
	// take takes what is judged out of a parsed request; nil: the members
	// judgedKeys.
	take  func(x *exchange) *refusal
	rules *toolRules
}

// route is one method and path that is answered. A path segment "*" stands
// for one identifier of unreserved characters, "*:verb" for one without a colon
// and with that verb behind it, "*:" for one without a colon.
type route struct {
	method, path string
	op           string      // operation name in events
	body         bool        // a JSON object is required; without it a body is refused
	model        bool        // the request names the model, and policy decides on it
	pathModel    bool        // the path names it, in its segment "*:verb"
	defaultModel string      // judged when the body names none; "" = the model is required
	stream       bool        // "stream": true is honoured by the provider
	streams      bool        // the answer is a stream, whatever the body says
	metered      bool        // the answer's usage is this call's usage
	unasked      bool        // a stream tells its usage only when it is asked: see includeusage.go
	binary       bool        // the answer is no JSON document
	ends         []string    // what the events hold that end a stream, one of them; nil: it is not known
	output       string      // member that bounds the tokens of output; "" = there is none
	query        []string    // parameters that are offered, "name" or "name=value"
	needs        string      // one of them, "name=value", without which the call is refused
	trial        trialAnswer // nil: the trial provider does not do this
}

// closedPath says why a well-known part of a provider's API is not offered.
type closedPath struct{ prefix, why string }

// trialAnswer makes the trial provider's answer to one request: one JSON
// document, or the events of a stream when the request asked for one.
type trialAnswer func(x *exchange) [][]byte

func dialectByName(name string) *dialect {
	for _, d := range dialects {
		if d.name == name {
			return d
		}
	}
	return nil
}

// addCommand is how an operator adds a provider of the dialect.
func (d *dialect) addCommand() string {
	return "ringfence provider add " + d.name + " --key-env " + strings.ToUpper(d.name) + "_API_KEY"
}
