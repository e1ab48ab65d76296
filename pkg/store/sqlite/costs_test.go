// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

func costOn(day, agent, model string, nano uint64) store.Cost {
	return store.Cost{CostKey: store.CostKey{Day: day, Org: "acme", Team: "red", Agent: agent, Provider: "p", Model: model}, CostSums: store.CostSums{Calls: 1, Nano: nano, TokensIn: 10}}
}

func cursorAt(n uint64) store.CostCursor {
	if n == 0 {
		return store.CostCursor{}
	}
	return store.CostCursor{Chain: "c", Sequence: n}
}

func addCosts(s *Store, from, to uint64, rows ...store.Cost) error {
	return s.AddCosts(context.Background(), cursorAt(from), cursorAt(to), rows)
}

func costs(t *testing.T, s *Store, q store.CostQuery) (out []string) {
	t.Helper()
	list, err := s.Costs(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		out = append(out, fmt.Sprintf("%s %s %s %d/%d", c.Day, c.Agent, c.Model, c.Calls, c.Nano))
	}
	return out
}

func TestCostsAreSummedUpOnce(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	rows := []store.Cost{costOn("2026-11-30", "a", "m", 5), costOn("2026-11-30", "a", "m", 7), costOn("2026-11-30", "b", "m", 1), costOn("2026-12-01", "a", "n", 2)}
	if err := addCosts(s, 0, 9, rows...); err != nil {
		t.Fatal(err)
	}
	for _, from := range []uint64{0, 8, 10} {
		if err := addCosts(s, from, 12, rows...); !errors.Is(err, store.ErrConflict) {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if err := addCosts(s, 9, 10, costOn("2026-11-30", "a", "m", 1)); err != nil {
		t.Fatal(err)
	}
	if c, err := s.CostCursor(context.Background()); err != nil || c != cursorAt(10) {
		t.Errorf("%+v %v", c, err)
	}
	for _, c := range []struct {
		q    store.CostQuery
		want []string
	}{
		{store.CostQuery{}, []string{"2026-11-30 a m 3/13", "2026-11-30 b m 1/1", "2026-12-01 a n 1/2"}},
		{store.CostQuery{From: "2026-12-01"}, []string{"2026-12-01 a n 1/2"}},
		{store.CostQuery{To: "2026-11-30", Agent: "b"}, []string{"2026-11-30 b m 1/1"}},
		{store.CostQuery{Org: "acme", Team: "red", Provider: "p", Model: "n"}, []string{"2026-12-01 a n 1/2"}},
		{store.CostQuery{Org: "other"}, nil},
	} {
		if got := costs(t, s, c.q); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %q", c.q, got)
		}
	}
	if n, err := s.PruneCosts(context.Background(), "2026-12-01"); n != 2 || err != nil {
		t.Error(n, err)
	}
}

func TestCostsOfMadeUpModelsStayBounded(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	var rows []store.Cost
	for i := range 3 * store.MaxCostModels {
		rows = append(rows, costOn("2026-11-30", "a", fmt.Sprintf("m-%04d", i), 1))
	}
	if err := addCosts(s, 0, 1, append(rows, costOn("2026-11-30", "a", "m-0000", 1), costOn("2026-11-30", "b", "m", 1))...); err != nil {
		t.Fatal(err)
	}
	got := costs(t, s, store.CostQuery{Agent: "a"})
	if len(got) != store.MaxCostModels+1 || got[0] != fmt.Sprintf("2026-11-30 a (other) %d/%d", 2*store.MaxCostModels, 2*store.MaxCostModels) || got[1] != "2026-11-30 a m-0000 2/2" {
		t.Errorf("%d rows, %q ...", len(got), got[:2])
	}
}

// A forged record must not stop the ledger for good.
func TestCostsOfImpossibleSizeStayAtTheLargest(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	for i, nano := range []uint64{math.MaxUint64, math.MaxInt64, 1} {
		if err := addCosts(s, uint64(i), uint64(i+1), costOn("2026-11-30", "a", "m", nano)); err != nil {
			t.Fatal(err)
		}
	}
	if got := costs(t, s, store.CostQuery{}); got[0] != fmt.Sprintf("2026-11-30 a m 3/%d", int64(math.MaxInt64)) {
		t.Error(got)
	}
}

func TestCostFieldsHaveNames(t *testing.T) {
	var s store.CostSums
	if n := len(s.Fields()); n != len(store.CostFields) || n != reflect.TypeFor[store.CostSums]().NumField() {
		t.Errorf("%d places, %d names, %d fields", n, len(store.CostFields), reflect.TypeFor[store.CostSums]().NumField())
	}
}
