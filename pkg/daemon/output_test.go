// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheOldestOutputGoesFirst(t *testing.T) {
	dir := t.TempDir()
	for i, id := range []string{"new", "mid", "alive", "old"} {
		path := filepath.Join(dir, id+".log")
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int64][]string{400: nil, 399: {"old"}, 200: {"old", "mid"}, 0: {"old", "mid", "new"}} {
		var got []string
		for _, p := range oldestOver(dir, limit, func(id string) bool { return id != "alive" }) {
			got = append(got, strings.TrimSuffix(filepath.Base(p), ".log"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
}
