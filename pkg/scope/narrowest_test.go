// SPDX-License-Identifier: Apache-2.0

package scope

import "testing"

func TestNarrowest(t *testing.T) {
	list := make([]Selector, 0, 5)
	for _, text := range []string{"org:a", "org:a/team:e*", "org:*", "org:a/team:eng", "org:b/team:eng/agent:x"} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	for text, want := range map[string]string{"org:a/team:eng/agent:y": "org:a/team:eng", "org:a/team:edge": "org:a/team:e*", "org:a/team:e*": "org:a/team:e*", "org:a/team:o": "org:a",
		"org:b/team:eng": "org:*", "org:b/team:eng/agent:x": "org:b/team:eng/agent:x", "org:*": "org:*"} {
		s, err := ParseSelector(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := Narrowest(list, s); !ok || got.String() != want {
			t.Errorf("%s: %s %v, want %s", text, got, ok, want)
		}
	}
	if got, ok := Narrowest(list[:1], All()); ok {
		t.Errorf("%s holds not everything", got)
	}
}
