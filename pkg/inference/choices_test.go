// SPDX-License-Identifier: Apache-2.0

package inference

import "testing"

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
