// SPDX-License-Identifier: Apache-2.0

package export

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringfence/ringfence/pkg/metrics"
)

// everything has one value of each metric of the table that is one number.
func everything(context.Context) ([]metrics.Counter, error) {
	var out []metrics.Counter
	for _, m := range metrics.Table() {
		if m.Type == metrics.HistogramType {
			continue
		}
		c := metrics.Counter{Name: m.Name, Value: 1}
		for _, l := range m.Labels {
			c.Labels = append(c.Labels, "a "+l)
		}
		out = append(out, c)
	}
	return out, nil
}

func TestLint(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewCollector(everything))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	all, _ := everything(t.Context())
	if n, err := testutil.GatherAndCount(reg); err != nil || n != len(all) {
		t.Errorf("%d series, want %d: %v", n, len(all), err)
	}
}

func TestHostileSourceStaysBounded(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(NewCollector(func(context.Context) ([]metrics.Counter, error) {
		out := []metrics.Counter{
			{Name: "go_evil", Value: 1}, {Name: "ringfence_audit_bytes", Labels: []string{"x"}, Value: 1},
			{Name: "ringfence_audit_segments", Value: 2}, {Name: "ringfence_audit_segments", Value: 3},
			{Name: "ringfence_events_dropped_total", Labels: []string{"\xff\n" + strings.Repeat("é", 100)}, Value: 1},
		}
		for i := range 1000 {
			out = append(out, metrics.Counter{Name: "ringfence_bpf_records_lost_total", Labels: []string{"r", strings.Repeat("x", i%400) + string(rune('a'+i%26))}, Value: 1})
		}
		return out, nil
	}))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if len(f.Metric) > metrics.MaxSeries+1 {
			t.Errorf("%s has %d series", f.GetName(), len(f.Metric))
		}
		for _, m := range f.Metric {
			switch f.GetName() {
			case "ringfence_bpf_records_lost_total":
				sum += m.GetCounter().GetValue()
			case metrics.RejectedName:
				if m.GetCounter().GetValue() != 2 {
					t.Errorf("rejected %v, want 2", m.GetCounter().GetValue())
				}
			case "ringfence_audit_segments":
				if m.GetGauge().GetValue() != 5 {
					t.Errorf("equal series are not added up: %v", m.GetGauge().GetValue())
				}
			case "go_evil":
				t.Error("a name that is not in the table was exported")
			}
		}
	}
	if sum != 1000 {
		t.Errorf("bounding lost values: %v of 1000", sum)
	}
}

func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var set metrics.Set
	set.Add("ringfence_events_total", 3, "network", "denied")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	failing := func(context.Context) ([]metrics.Counter, error) { return nil, errors.New("keeper is away") }
	own := func(context.Context) ([]metrics.Counter, error) { return set.Counters(), nil }
	go func() { done <- Serve(ctx, ln, Handler(own, failing), slog.New(slog.DiscardHandler)) }()
	body := get(t, "http://"+ln.Addr().String()+"/metrics")
	for _, want := range []string{`ringfence_events_total{kind="network",verdict="denied"} 3`, "ringfence_up 0"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	return string(b)
}
