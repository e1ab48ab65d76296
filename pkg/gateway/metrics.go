// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/metrics"
)

// counters are the gateway's own metrics. Names and labels are those of the
// table in package metrics, where it has them. Label values come from small
// fixed sets: no name, path or model that a sandbox chooses becomes a label.
type counters struct {
	active     prometheus.Gauge
	accepted   prometheus.Counter
	unrecorded prometheus.Counter
	pending    func() float64

	associations  prometheus.Gauge
	datagrams     *prometheus.CounterVec // direction
	datagramsLost *prometheus.CounterVec // reason
	// of datagrams, looked up once
	datagramsIn, datagramsOut prometheus.Counter

	shadow   *prometheus.CounterVec // kind, verdict, effect
	egress   *prometheus.CounterVec // verdict, reason
	dns      *prometheus.CounterVec // verdict, type
	http     *prometheus.CounterVec // verdict, status
	bytes    *prometheus.CounterVec // direction
	calls    *prometheus.CounterVec // provider, verdict, status
	limited  *prometheus.CounterVec // reason
	tokens   *prometheus.CounterVec // provider, type
	duration *prometheus.CounterVec // provider
	spend    *spendMetrics
}

func newCounters(reg prometheus.Registerer, k Keeper) (*counters, error) {
	opts := func(name, help string) prometheus.CounterOpts {
		if m, ok := metrics.Find(name); ok {
			help = m.Help
		}
		return prometheus.CounterOpts{Name: name, Help: help}
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(opts(name, help), labels)
	}
	m := &counters{
		active:        prometheus.NewGauge(prometheus.GaugeOpts(opts("ringfence_gateway_connections", ""))),
		accepted:      prometheus.NewCounter(opts("ringfence_gateway_connections_total", "")),
		unrecorded:    prometheus.NewCounter(opts("ringfence_gateway_refused_event_buffer_total", "Connections, questions and requests refused because the event buffer was full.")),
		associations:  prometheus.NewGauge(prometheus.GaugeOpts(opts("ringfence_gateway_datagram_flows", ""))),
		datagrams:     vec("ringfence_gateway_datagrams_total", "", "direction"),
		datagramsLost: vec("ringfence_gateway_datagrams_lost_total", "", "reason"),
		shadow:        vec("ringfence_shadow_decisions_total", "", "kind", "verdict", "effect"),
		egress:        vec("ringfence_egress_verdicts_total", "", "verdict", "reason"),
		dns:           vec("ringfence_dns_questions_total", "", "verdict", "type"),
		http:          vec("ringfence_http_requests_total", "", "verdict", "status"),
		bytes:         vec("ringfence_gateway_bytes_total", "Bytes of finished connections and requests; in is towards the sandbox.", "direction"),
		calls:         vec("ringfence_inference_requests_total", "", "provider", "verdict", "status"),
		limited:       vec("ringfence_inference_limited_total", "", "reason"),
		tokens:        vec("ringfence_inference_tokens_total", "", "provider", "type"),
		duration:      vec("ringfence_inference_duration_seconds_total", "", "provider"),
		spend:         newSpendMetrics(),
	}
	m.datagramsIn, m.datagramsOut = m.datagrams.WithLabelValues("in"), m.datagrams.WithLabelValues("out")
	if reg == nil {
		return m, nil
	}
	pending := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ringfence_gateway_events_pending", Help: "Places taken in the gateway's event buffer."},
		func() float64 { return m.pending() })
	for _, c := range append(m.spend.all(), []prometheus.Collector{m.active, m.accepted, m.unrecorded, m.shadow, m.egress, m.dns, m.http, m.bytes, m.calls, m.limited, m.tokens, m.duration,
		m.associations, m.datagrams, m.datagramsLost,
		pending, &keeperCollector{keeper: k}}...) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// observe counts what an event tells.
func (m *counters) observe(ev *event.Event) {
	v := verdictLabel(ev.Verdict)
	if effect, _, would := strings.Cut(ev.Shadow, " by "); would {
		m.shadow.WithLabelValues(ev.Kind.String(), v, effect).Inc()
	}
	switch ev.Kind {
	case event.KindDNS:
		m.dns.WithLabelValues(v, queryLabel(ev.QueryType)).Inc()
		return
	case event.KindNetwork:
		m.egress.WithLabelValues(v, ev.ReasonCode).Inc()
	case event.KindHTTP:
		m.http.WithLabelValues(v, statusClass(ev.Status)).Inc()
	case event.KindInference:
		m.calls.WithLabelValues(ev.Provider, v, statusClass(ev.Status)).Inc()
		if what, limited := strings.CutPrefix(ev.ReasonCode, "rate-"); limited {
			m.limited.WithLabelValues(what).Inc()
		}
		m.tokens.WithLabelValues(ev.Provider, "input").Add(float64(ev.TokensIn))
		m.tokens.WithLabelValues(ev.Provider, "output").Add(float64(ev.TokensOut))
		m.tokens.WithLabelValues(ev.Provider, "cached").Add(float64(ev.TokensCached))
		m.duration.WithLabelValues(ev.Provider).Add(max(0, ev.Duration.Seconds()))
		m.spend.observe(ev)
	default:
		return
	}
	m.bytes.WithLabelValues("in").Add(float64(ev.BytesIn))
	m.bytes.WithLabelValues("out").Add(float64(ev.BytesOut))
}

// Why a datagram was lost or not passed on.
const (
	lostOverflow = "overflow" // the socket that the kernel steers to was full
	lostWaiting  = "waiting"  // too many came before the destination was resolved
	lostRefused  = "refused"  // its flow was refused
	lostStray    = "stray"    // from an address that no client has, or to the relay's own socket
	lostSize     = "size"     // longer than the way it has to go takes
	lostSend     = "send"     // the kernel did not take it
	lostReceive  = "receive"  // reading failed
)

// lost counts datagrams that went nowhere.
func (m *counters) lost(reason string, n uint64) {
	m.datagramsLost.WithLabelValues(reason).Add(float64(n))
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

func queryLabel(t string) string {
	if slices.Contains([]string{"A", "AAAA", "HTTPS", "SVCB", "PTR", "TXT", "SRV", "MX"}, t) {
		return t
	}
	return metrics.Other
}

func statusClass(s uint32) string {
	if s < 100 || s > 599 {
		return "none"
	}
	return strconv.Itoa(int(s/100)) + "xx"
}

// keeperCollector adds the keeper's counters to each scrape. It describes
// nothing, which makes it an unchecked collector. What is not in the table of
// package metrics, or has other labels there, is counted as rejected.
type keeperCollector struct{ keeper Keeper }

// Describe implements prometheus.Collector.
func (*keeperCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. A keeper that does not answer shows
// as ringfence_up 0.
func (c *keeperCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	up := 1.0
	list, err := c.keeper.Counters(ctx)
	if err != nil {
		up = 0
	}
	all := []metrics.Counter{{Name: "ringfence_up", Value: up}}
	for _, s := range list {
		all = append(all, metrics.Counter(s))
	}
	for _, s := range metrics.Bound(all) {
		row, ok := metrics.Find(s.Name)
		if !ok || ownMetric(s.Name) {
			continue
		}
		kind := prometheus.CounterValue
		if row.Type == metrics.GaugeType {
			kind = prometheus.GaugeValue
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(row.Name, row.Help, row.Labels, nil), kind, s.Value, s.Labels...)
		if err == nil {
			out <- m
		}
	}
}

// ownMetric tells whether the gateway counts a metric itself.
func ownMetric(name string) bool {
	return slices.Contains([]string{"ringfence_gateway_datagram_flows", "ringfence_gateway_datagrams_total", "ringfence_gateway_datagrams_lost_total",
		"ringfence_gateway_connections", "ringfence_gateway_connections_total", "ringfence_egress_verdicts_total",
		"ringfence_dns_questions_total", "ringfence_http_requests_total", "ringfence_inference_requests_total",
		"ringfence_inference_tokens_total", "ringfence_inference_duration_seconds_total", "ringfence_shadow_decisions_total"}, name) || ownSpend(name)
}
