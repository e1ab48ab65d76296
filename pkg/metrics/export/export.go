// SPDX-License-Identifier: Apache-2.0

// Package export serves counters of package metrics to Prometheus.
package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ringfence/ringfence/pkg/metrics"
)

// Source gives the present values. The keeper's come over the wire: they are
// bounded before they are shown.
type Source func(ctx context.Context) ([]metrics.Counter, error)

// scrapeTimeout bounds how long one scrape waits for its sources.
const scrapeTimeout = 5 * time.Second

// collector is a prometheus.Collector over the table of metrics.
type collector struct {
	sources []Source
	descs   map[string]*prometheus.Desc
}

// NewCollector makes a collector that asks the sources at each scrape. A source
// that fails sets ringfence_up to 0; what the others said is shown.
func NewCollector(sources ...Source) prometheus.Collector {
	c := &collector{sources: sources, descs: map[string]*prometheus.Desc{}}
	for _, m := range metrics.Table() {
		c.descs[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
	}
	return c
}

func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	var all []metrics.Counter
	up := 1.0
	for _, src := range c.sources {
		values, err := src(ctx)
		if err != nil {
			up = 0
			continue
		}
		all = append(all, values...)
	}
	all = append(all, metrics.Counter{Name: "ringfence_up", Value: up})
	for _, v := range metrics.Bound(all) {
		m, _ := metrics.Find(v.Name)
		kind := prometheus.CounterValue
		if m.Type == metrics.GaugeType {
			kind = prometheus.GaugeValue
		}
		if metric, err := prometheus.NewConstMetric(c.descs[v.Name], kind, v.Value, v.Labels...); err == nil {
			ch <- metric
		}
	}
}

// Handler answers GET /metrics from the sources.
func Handler(sources ...Source) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(sources...))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 2 * scrapeTimeout, EnableOpenMetrics: true,
	}))
	return mux
}

// Serve serves the handler on a listener until ctx ends. It closes the listener.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := srv.Shutdown(grace); err != nil {
			stopped <- srv.Close()
			return
		}
		stopped <- nil
	})
	err := srv.Serve(ln)
	if stop() { // ctx has not ended: Serve failed by itself
		return fmt.Errorf("metrics: %w", err)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return <-stopped
	}
	return fmt.Errorf("metrics: %w", errors.Join(err, <-stopped))
}
