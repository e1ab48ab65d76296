// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/metrics"
)

// spendMetrics are what model calls used and cost, also under the names of the
// OpenTelemetry conventions for generative AI (in development; dots become
// underscores as in the OpenMetrics mapping). The label of a model is the name of
// its entry in the price table, which operators write, never what a sandbox asked
// for: what has no entry of its own is "other".
type spendMetrics struct {
	usage    *prometheus.HistogramVec // operation, provider, model, type
	duration *prometheus.HistogramVec // operation, provider, model, error
	cost     *prometheus.CounterVec   // provider, model
	priced   *prometheus.CounterVec   // price
}

// Names of metrics.
const (
	usageName    = "gen_ai_client_token_usage"
	durationName = "gen_ai_client_operation_duration_seconds"
	costName     = "ringfence_inference_cost_dollars_total"
	pricedName   = "ringfence_inference_priced_total"
)

func ownSpend(name string) bool {
	return slices.Contains([]string{usageName, durationName, costName, pricedName}, name)
}

// newSpendMetrics has the buckets that the conventions ask for: powers of four from
// 1 to 67108864 tokens, powers of two from 0.01 to 81.92 seconds.
func newSpendMetrics() *spendMetrics {
	row := func(name string) (help string, labels []string) {
		m, _ := metrics.Find(name) // the tests look that it is there
		return m.Help, m.Labels
	}
	counter := func(name string) *prometheus.CounterVec {
		help, labels := row(name)
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name string, buckets []float64) *prometheus.HistogramVec {
		help, labels := row(name)
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	return &spendMetrics{
		usage: histogram(usageName, prometheus.ExponentialBuckets(1, 4, 14)), duration: histogram(durationName, prometheus.ExponentialBuckets(0.01, 2, 14)),
		cost: counter(costName), priced: counter(pricedName),
	}
}

func (m *spendMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.usage, m.duration, m.cost, m.priced}
}

// observe counts one call. One that was refused is no operation of a client.
func (m *spendMetrics) observe(ev *event.Event) {
	if ev.IsDenial() {
		return
	}
	model := metrics.Other
	if _, name, ok := strings.Cut(ev.PriceModel, "/"); ok && ev.Price != event.PriceEstimated {
		model = name
	}
	operation := operationName(ev.Operation)
	m.duration.WithLabelValues(operation, ev.Provider, model, errorType(ev)).Observe(max(0, ev.Duration.Seconds()))
	if ev.TokensIn > 0 || ev.TokensOut > 0 {
		m.usage.WithLabelValues(operation, ev.Provider, model, "input").Observe(float64(ev.TokensIn))
		m.usage.WithLabelValues(operation, ev.Provider, model, "output").Observe(float64(ev.TokensOut))
	}
	if ev.Price == "" {
		return
	}
	m.priced.WithLabelValues(ev.Price).Inc()
	if ev.Priced() {
		m.cost.WithLabelValues(ev.Provider, model).Add(float64(ev.Cost) / 1e9) // for a graph; the ledger is exact
	}
}

// operationName is the convention's word for an operation of a dialect, the
// dialect's own where it has none.
func operationName(op string) string {
	switch op {
	case "chat", "messages", "responses":
		return "chat"
	case "completions":
		return "text_completion"
	case "generateContent", "streamGenerateContent":
		return "generate_content"
	case "embedContent", "batchEmbedContents":
		return "embeddings"
	}
	return op
}

// errorType is "" for what went well.
func errorType(ev *event.Event) string {
	switch {
	case ev.Failed:
		return "failed"
	case ev.Status >= 400:
		return statusClass(ev.Status)
	}
	return ""
}
