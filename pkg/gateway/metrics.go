// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence/ringfence/pkg/event"
)

// metrics are the gateway's counters. Label values come from fixed sets: no
// name, path or model that a sandbox chooses becomes a label.
type metrics struct {
	active     prometheus.Gauge
	unrecorded prometheus.Counter
	pending    func() float64

	verdicts  *prometheus.CounterVec // layer, verdict, reason
	bytes     *prometheus.CounterVec // direction
	responses *prometheus.CounterVec // code class
	dns       *prometheus.CounterVec // rcode
	calls     *prometheus.CounterVec // provider, status class, credential
	tokens    *prometheus.CounterVec // provider, type
	latency   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, k Keeper) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ringfence", Subsystem: "gateway", Name: name, Help: help}, labels)
	}
	m := &metrics{
		active: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "ringfence", Subsystem: "gateway", Name: "connections_active",
			Help: "Connections of sandboxes being served."}),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{Namespace: "ringfence", Subsystem: "gateway", Name: "refused_event_buffer_total",
			Help: "Connections, questions and requests refused because the event buffer was full."}),
		verdicts:  counter("verdicts_total", "Decisions by layer, verdict and reason code.", "layer", "verdict", "reason"),
		bytes:     counter("bytes_total", "Bytes of finished connections and requests; in is towards the sandbox.", "direction"),
		responses: counter("http_responses_total", "Answers to inspected HTTP requests by status class.", "class"),
		dns:       counter("dns_answers_total", "DNS answers by response code.", "rcode"),
		calls:     counter("inference_calls_total", "Model calls by provider, status class and credential mode.", "provider", "class", "credential"),
		tokens:    counter("inference_tokens_total", "Tokens of model calls.", "provider", "type"),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "ringfence", Subsystem: "gateway", Name: "inference_duration_seconds",
			Help: "Duration of model calls.", Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}}, []string{"provider"}),
	}
	if reg == nil {
		return m, nil
	}
	pending := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "ringfence", Subsystem: "gateway", Name: "events_pending",
		Help: "Places taken in the event buffer."}, func() float64 { return m.pending() })
	for _, c := range []prometheus.Collector{m.active, m.unrecorded, m.verdicts, m.bytes, m.responses, m.dns, m.calls, m.tokens, m.latency,
		pending, &keeperCollector{keeper: k}} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe counts what an event tells.
func (m *metrics) observe(ev *event.Event) {
	switch ev.Kind {
	case event.KindNetwork, event.KindHTTP, event.KindDNS, event.KindInference:
	default:
		return
	}
	m.verdicts.WithLabelValues(ev.Layer, verdictLabel(ev.Verdict), ev.ReasonCode).Inc()
	switch ev.Kind {
	case event.KindDNS:
		m.dns.WithLabelValues(ev.RCode).Inc()
		return
	case event.KindHTTP:
		m.responses.WithLabelValues(statusClass(ev.Status)).Inc()
	case event.KindInference:
		m.calls.WithLabelValues(ev.Provider, statusClass(ev.Status), ev.Credential).Inc()
		m.tokens.WithLabelValues(ev.Provider, "input").Add(float64(ev.TokensIn))
		m.tokens.WithLabelValues(ev.Provider, "output").Add(float64(ev.TokensOut))
		m.tokens.WithLabelValues(ev.Provider, "cached").Add(float64(ev.TokensCached))
		m.latency.WithLabelValues(ev.Provider).Observe(ev.Duration.Seconds())
	}
	m.bytes.WithLabelValues("in").Add(float64(ev.BytesIn))
	m.bytes.WithLabelValues("out").Add(float64(ev.BytesOut))
}

func verdictLabel(v event.Verdict) string {
	switch v {
	case event.Allowed:
		return "allowed"
	case event.Observed:
		return "observed"
	}
	return "denied"
}

func statusClass(s uint32) string {
	if s < 100 || s > 599 {
		return "none"
	}
	return strconv.Itoa(int(s/100)) + "xx"
}

// keeperCollector adds the keeper's counters to each scrape. It describes
// nothing, which makes it an unchecked collector: the keeper's set of counters
// is its own affair.
type keeperCollector struct{ keeper Keeper }

// Describe implements prometheus.Collector.
func (*keeperCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A keeper that does not answer shows
// as ringfence_keeper_up 0.
func (c *keeperCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	up := 1.0
	list, err := c.keeper.Counters(ctx)
	if err != nil {
		up = 0
	}
	out <- prometheus.MustNewConstMetric(prometheus.NewDesc("ringfence_keeper_up", "Whether the keeper answered this scrape.", nil, nil),
		prometheus.GaugeValue, up)
	for _, s := range list {
		var names, values []string
		for _, l := range s.Labels {
			k, v, _ := strings.Cut(l, "=")
			names, values = append(names, k), append(values, v)
		}
		kind := prometheus.GaugeValue
		if strings.HasSuffix(s.Name, "_total") {
			kind = prometheus.CounterValue
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(s.Name, "Reported by the keeper.", names, nil), kind, s.Value, values...)
		if err == nil {
			out <- m
		}
	}
}
