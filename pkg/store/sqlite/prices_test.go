// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

func TestPriceTables(t *testing.T) {
	s, ctx := open(t, t.TempDir()), context.Background()
	defer closeStore(t, s)
	a, b := store.PriceTable{Version: "a", Text: "one", Added: 5, Author: "uid=0(root)"}, store.PriceTable{Version: "b", Text: "two", Added: 6, Author: "uid=0(root)"}
	for _, p := range []store.PriceTable{b, a} {
		if err := s.PutPrices(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	changed := a
	changed.Text = "other"
	if err := s.PutPrices(ctx, changed); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a version was given another meaning: %v", err)
	}
	if got, err := s.Prices(ctx); err != nil || !reflect.DeepEqual(got, []store.PriceTable{a, b}) {
		t.Errorf("%+v %v", got, err)
	}
	if err := s.DeletePrices(ctx, "c"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	if err := s.DeletePrices(ctx, "a"); err != nil {
		t.Error(err)
	}
	if got, err := s.Prices(ctx); err != nil || !reflect.DeepEqual(got, []store.PriceTable{b}) {
		t.Errorf("%+v %v", got, err)
	}
}
