// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestTheFieldsPage compares FIELDS.md with the tables.
func TestTheFieldsPage(t *testing.T) {
	if *update {
		if err := os.WriteFile("FIELDS.md", Page(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("FIELDS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(page, Page()) {
		t.Error("FIELDS.md is stale: go test ./pkg/inference/translate -run TestTheFieldsPage -update")
	}
}

// TestEveryRowSaysWhy: only what is carried as it is needs no words.
func TestEveryRowSaysWhy(t *testing.T) {
	for _, table := range Tables() {
		for i := range table.Rows {
			r := &table.Rows[i]
			switch {
			case r.Kinds == 0:
				t.Errorf("%s: %s has no type", table.Title, r.Path)
			case r.Do != Carried && r.Why == "":
				t.Errorf("%s: %s is %s without a word", table.Title, r.Path, r.Do)
			case r.Unless != "" && r.Do != Refused && r.Do != Ignored:
				t.Errorf("%s: %s is %s: a value that asks for nothing is nothing there", table.Title, r.Path, r.Do)
			case strings.Contains(r.Why+r.To, "|"):
				t.Errorf("%s: %s breaks the page's table", table.Title, r.Path)
			}
		}
	}
}
