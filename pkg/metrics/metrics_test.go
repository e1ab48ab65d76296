// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"reflect"
	"strconv"
	"sync"
	"testing"
)

func TestSet(t *testing.T) {
	var s Set
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				s.Add("ringfence_events_total", 1, "network", strconv.Itoa(i%3))
				s.Add("ringfence_egress_verdicts_total", 1, "denied", strconv.Itoa(i))
			}
		})
	}
	wg.Wait()
	s.Put("ringfence_sandboxes", 4)
	s.Put("ringfence_sandboxes", 2)
	s.Add("no_such_metric", 1)
	s.Add("ringfence_sandboxes", 1, "one label too many")
	sums := map[string]float64{}
	series := map[string]int{}
	for _, c := range s.Counters() {
		sums[c.Name] += c.Value
		series[c.Name]++
	}
	want := map[string]float64{
		"ringfence_events_total": 8000, "ringfence_egress_verdicts_total": 8000, "ringfence_sandboxes": 2, RejectedName: 2,
	}
	if !reflect.DeepEqual(sums, want) {
		t.Errorf("sums %v", sums)
	}
	if n := series["ringfence_egress_verdicts_total"]; n != MaxSeries+1 {
		t.Errorf("%d series, want %d and the rest", n, MaxSeries)
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range Table() {
		if seen[m.Name] {
			t.Errorf("%s is there twice", m.Name)
		}
		seen[m.Name] = true
		if got, ok := Find(m.Name); !ok || got.Help != m.Help {
			t.Errorf("%s is not found", m.Name)
		}
	}
	if _, ok := Find("ringfence_nothing"); ok {
		t.Error("found what is not there")
	}
}
