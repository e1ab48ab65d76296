// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"net/http"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/test/doubles"
)

// What one agent can make a provider answer, by what it asks for, sets nothing aside
// that others use: breakers are the node's.
func TestWhatAnAgentAsksForSetsNothingAsideForOthers(t *testing.T) {
	anyModel := func(p *policy.Provider) {
		p.Models = []policy.ModelEntry{{Match: scope.Pattern{Wild: true}}}
	}
	for name, c := range map[string]struct {
		method, path, body string
		fault              doubles.Fault
	}{
		"a model that there is not": {"POST", "/v1/chat/completions", `{"model":"none","messages":[]}`,
			doubles.Fault{Status: 404, Body: `{"error":{"message":"no such model","code":"model_not_found"}}`}},
		"a model that the account does not have": {"POST", "/v1/chat/completions", `{"model":"gpt-4","messages":[]}`,
			doubles.Fault{Status: 403, Body: `{"error":{"message":"Project p does not have access to model gpt-4","type":"invalid_request_error","code":"model_not_found"}}`}},
		"words that the provider says again": {"POST", "/v1/chat/completions", `{"model":"m","messages":[{"role":"api key not valid","content":""}]}`,
			doubles.Fault{Status: 400, Body: `{"error":{"message":"Invalid value: 'api key not valid'. Supported values are: 'system'","code":"invalid_value"}}`}},
		"an operation without a model": {"GET", "/v1/models", "",
			doubles.Fault{Status: 501, Body: `{"error":{"message":"not built"}}`}},
		"an operation without a model that is limited": {"GET", "/v1/models", "",
			doubles.Fault{Status: 429, Header: http.Header{"Retry-After": {"600"}}, Body: `{"error":{"message":"slow"}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlaces(t, setup{change: anyModel}, "a")
			for range 6 {
				p.of["a"].Fail(c.fault)
				p.ask(c.method, "https://"+openAIHost+c.path, c.body, "Test-Sandbox", "hostile")
				p.event()
			}
			p.of["a"].Reset()
			if resp, body := p.chat(simple, "Test-Sandbox", "other"); resp.StatusCode != 200 {
				t.Errorf("others get %d %s", resp.StatusCode, body)
			}
		})
	}
}
