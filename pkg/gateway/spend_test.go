// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/metrics"
)

func TestSpendMetrics(t *testing.T) {
	for _, name := range []string{usageName, durationName, costName, pricedName} {
		if _, ok := metrics.Find(name); !ok {
			t.Errorf("%s is not in the table", name)
		}
	}
	m := newSpendMetrics()
	reg := prometheus.NewRegistry()
	for _, c := range m.all() {
		reg.MustRegister(c)
	}
	call := event.Event{Kind: event.KindInference, Verdict: event.Allowed, Provider: "p", Operation: "messages", Status: 200, Duration: time.Second,
		Model: "what the sandbox said", ModelServed: "m-1", TokensIn: 100, TokensOut: 7, Cost: 2_500_000_000, Price: event.PriceKnown, PriceModel: "anthropic/m-*"}
	other := call
	other.PriceModel, other.Price, other.Cost = "", event.PriceUnknown, 0
	estimated := call
	estimated.Price, estimated.Status = event.PriceEstimated, 429
	denied := call
	denied.Verdict = event.Denied
	for _, ev := range []event.Event{call, call, other, estimated, denied} {
		m.observe(&ev)
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, s := range f.GetMetric() {
			var labels []string
			for _, l := range s.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			slices.Sort(labels)
			v := s.GetCounter().GetValue()
			if h := s.GetHistogram(); h != nil {
				v = h.GetSampleSum()
			}
			got[f.GetName()+" "+strings.Join(labels, " ")] = v
		}
	}
	for k, want := range map[string]float64{
		costName + " m-* p": 5, costName + " other p": 2.5,
		pricedName + " known": 2, pricedName + " unknown": 1, pricedName + " estimated": 1,
		usageName + " chat input m-* p": 200, usageName + " chat m-* output p": 14, usageName + " chat input other p": 200,
		durationName + "  chat m-* p": 2, durationName + " 4xx chat other p": 1,
	} {
		if got[k] != want {
			t.Errorf("%s is %v, not %v; all: %v", k, got[k], want, got)
		}
	}
	for k := range got {
		if strings.Contains(k, "sandbox") || strings.Contains(k, "m-1") {
			t.Errorf("%s has what a sandbox chose", k)
		}
	}
}
