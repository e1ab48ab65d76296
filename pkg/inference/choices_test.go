// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/price"
)

// Each answer that a request asks for at once may be as long as its cap: what it may
// cost counts them all.
func TestChoices(t *testing.T) {
	for body, want := range map[string]uint64{
		`{}`: 1, `{"n":0}`: 1, `{"n":5}`: 5, `{"n":2,"best_of":7}`: 7, `{"n":-3}`: 1, `{"n":"9"}`: 9, `{"n":"x"}`: 1, `{"n":"NaN"}`: 1,
		`{"n":10.0}`: 10, `{"n":1e1}`: 10, `{"n":9.5}`: 10, `{"n":[3]}`: 1, `{"generationConfig":{"candidateCount":"4"}}`: 4,
		`{"prompt":"a"}`: 1, `{"prompt":["a","b","c"],"n":2}`: 6, `{"prompt":[1,2,3]}`: 1, `{"prompt":[[1],[2]]}`: 2,
		`{"generationConfig":{"candidateCount":4}}`: 4, `{"generation_config":{"candidate_count":4}}`: 4,
	} {
		tp, err := parse([]byte(body), nil, func(int) bool { return true })
		if err != nil {
			t.Fatal(body, err)
		}
		if got := tp.choices(); got != want {
			t.Errorf("%s: %d choices, want %d", body, got, want)
		}
	}
}

func TestOddChoices(t *testing.T) {
	for body, want := range map[string]bool{
		`{}`: false, `{"n":3}`: false, `{"n":null}`: false, `{"n":1e2}`: true, `{"n":100.0}`: true, `{"n":"100"}`: true, `{"best_of":-1}`: true,
		`{"generationConfig":{"candidateCount":8}}`: false, `{"generationConfig":{"candidateCount":"8"}}`: true,
	} {
		tp, err := parse([]byte(body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := tp.oddChoices(); got != want {
			t.Errorf("%s: %v", body, got)
		}
	}
}

func TestWhatHoldsTheOutput(t *testing.T) {
	for _, c := range []struct {
		body, output string
		want         uint64
	}{
		{`{"max_tokens":7}`, "max_completion_tokens", 7}, {`{"max_tokens":7,"max_completion_tokens":9}`, "max_completion_tokens", 9},
		{`{"max_output_tokens":1}`, "max_completion_tokens", 0}, {`{"max_tokens":1}`, "max_output_tokens", 0}, {`{"max_tokens":1}`, "", 0}, {`{"max_tokens":1}`, geminiOutput, 0},
		{`{"max_tokens":1,"max_completion_tokens":"100000"}`, "max_completion_tokens", 0}, {`{"max_tokens":1,"max_completion_tokens":1e5}`, "max_completion_tokens", 0},
		{`{"max_tokens":1,"max_completion_tokens":null}`, "max_completion_tokens", 1}, {`{"generation_config":{"max_output_tokens":3},"max_tokens":1}`, geminiOutput, 3},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := tp.outputHeld(c.output); got != c.want {
			t.Errorf("%s for %s: %d, want %d", c.body, c.output, got, c.want)
		}
	}
}

// A provider repeats a request's tools in its answer, before the usage.
func TestUsageBehindWhatARequestHoldsIsCounted(t *testing.T) {
	for _, stream := range []bool{false, true} {
		deep := `"tools":[{"type":"function","parameters":` + strings.Repeat(`{"a":`, maxDepth-4) + "1" + strings.Repeat("}", maxDepth-4) + "}]"
		if _, err := parse([]byte("{"+deep+"}"), nil, nil); err != nil {
			t.Fatal(err)
		}
		doc := `{"object":"response","output":[],` + deep + `,"usage":{"input_tokens":400000,"output_tokens":9000,"total_tokens":409000}}`
		if stream {
			doc = "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":" + doc + "}\n\n"
		}
		m := newMeter(stream, "responses")
		m.feed([]byte(doc))
		if u := m.total(&tape{}, false); u.estimated || u.Usage[price.Input] != 400000 || u.Usage[price.Output] != 9000 {
			t.Errorf("stream=%v: %+v", stream, u)
		}
	}
}
