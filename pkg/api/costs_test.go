// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"encoding/json"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

func selector(t *testing.T, text string) scope.Selector {
	t.Helper()
	s, err := scope.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Costs are summed up after what the caller does not see was taken out.
func TestCostsOfScopesThatTheCallerSees(t *testing.T) {
	viewer := func(in string) Rights {
		return Rights{uid: 5, held: []holding{{selector(t, in), policy.RoleViewer}}}
	}
	for _, c := range []struct {
		name   string
		rights Rights
		by     string
		want   string
		within string
		missed uint64
	}{
		{"root", Rights{root: true}, "org", "=32 acme=15 local=16", "[]", 2},
		{"who sees all", viewer("org:*"), "org", "=32 acme=15 local=16", "[]", 2},
		{"a team", viewer("org:acme/team:x"), "org,team", "acme x=7", "[org:acme/team:x]", 0},
		{"a team by day", viewer("org:acme/team:x"), "day", "2026-11-29=1 2026-11-30=6", "[org:acme/team:x]", 0},
		{"an agent", viewer("org:acme/team:x/agent:other"), "agent,model", "other n=4", "[org:acme/team:x/agent:other]", 0},
		{"agents of a name", viewer("org:acme/team:*/agent:web"), "team", "x=3 y=8", "[org:acme/agent:web]", 0},
		{"one who only launches", Rights{uid: 5, held: []holding{{selector(t, "org:acme/team:x"), policy.RoleLauncher}}}, "org", "", "[]", 0},
		{"a member where nobody has a scope of their own", Rights{uid: 5, plain: true, held: []holding{{defaultScope(), policy.RoleLauncher}}}, "org", "=32 acme=15 local=16", "[]", 2},
	} {
		s := &Server{o: Options{Backend: newFake()}}
		w := httptest.NewRecorder()
		r := &call{Request: httptest.NewRequest("GET", "/v1/costs?by="+c.by, nil), caller: &Caller{Rights: c.rights}}
		if err := s.costs(w, r); err != nil || w.Code != http.StatusOK {
			t.Fatalf("%s: %d %v", c.name, w.Code, err)
		}
		var got Costs
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		var rows []string
		for i := range got.Rows {
			var keys []string
			for _, k := range got.By {
				keys = append(keys, *got.Rows[i].Key(k))
			}
			rows = append(rows, fmt.Sprintf("%s=%d", strings.Join(keys, " "), got.Rows[i].CostNanoUSD))
		}
		if s := strings.Join(rows, " "); s != c.want || fmt.Sprint(got.Within) != c.within || got.Missed != c.missed {
			t.Errorf("%s: %q within %v, missed %d; want %q", c.name, s, got.Within, got.Missed, c.want)
		}
	}
}

func TestSumsOfCostsKeepEveryNumber(t *testing.T) {
	var a, b CostRow
	for i, v := range a.sums() {
		*v = uint64(i + 1)
	}
	if n := len(a.sums()); n != reflect.TypeFor[CostRow]().NumField()-len(CostKeys) {
		t.Errorf("%d sums", n)
	}
	b = a
	got := SumCosts([]CostRow{a, b}, nil)
	for i, v := range got[0].sums() {
		if *v != uint64(2*(i+1)) {
			t.Errorf("sum %d is %d", i, *v)
		}
	}
	a.CostNanoUSD, b.CostNanoUSD = math.MaxUint64-1, 5
	if got := SumCosts([]CostRow{a, b}, nil); got[0].CostNanoUSD != math.MaxUint64 {
		t.Error("the sum went around")
	}
}
