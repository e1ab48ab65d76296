// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"testing"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/store"
)

var byRoot = documents.Act{Author: store.Author{Name: "root", PID: 1, Program: "ringfence"}, Action: "apply"}

func newStore(t *testing.T) store.Store {
	t.Helper()
	st, err := openStore(t.TempDir(), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}
