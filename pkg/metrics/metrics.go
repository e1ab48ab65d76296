// SPDX-License-Identifier: Apache-2.0

// Package metrics names every metric of the product and counts them. It has no
// dependency on Prometheus, so that the keeper stays small; package export
// serves what is counted here from an unprivileged process.
package metrics

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// Type says how a metric behaves.
type Type uint8

const (
	CounterType   Type = iota // only grows
	GaugeType                 // goes up and down
	HistogramType             // counts by size; only of the gateway's own
)

// String is the word of the exposition format.
func (t Type) String() string {
	switch t {
	case GaugeType:
		return "gauge"
	case HistogramType:
		return "histogram"
	}
	return "counter"
}

// Metric is one row of the table of all metrics.
type Metric struct {
	Name   string
	Help   string
	Type   Type
	Labels []string // names; values must come from a small fixed set, never a domain, path or prompt
}

// Counter is one value of a metric, for counters and gauges alike. Labels are
// the values in the order of Metric.Labels.
type Counter struct {
	Name   string
	Labels []string
	Value  float64
}

// Bounds that keep a compromised or careless source from filling the memory of
// whoever scrapes.
const (
	MaxSeries     = 256     // label combinations of one metric; further ones are added up as "other"
	MaxLabelBytes = 64      // longer label values are cut
	Other         = "other" // label value of what did not fit
)

// Find returns the row of the table with this name.
func Find(name string) (Metric, bool) {
	i, ok := slices.BinarySearchFunc(table, name, func(m Metric, n string) int { return strings.Compare(m.Name, n) })
	if !ok {
		return Metric{}, false
	}
	return table[i], true
}

// Table returns all metrics in order of name.
func Table() []Metric { return slices.Clone(table) }

// Set counts. The zero value is ready; all methods may be called concurrently.
type Set struct {
	mu      sync.Mutex
	series  map[string]*Counter // by name and label values
	number  map[string]int      // series of a metric
	unknown uint64
}

// Add adds to a counter, or moves a gauge by v.
func (s *Set) Add(name string, v float64, labels ...string) {
	s.update(name, labels, func(c *Counter) { c.Value += v })
}

// Put sets a gauge.
func (s *Set) Put(name string, v float64, labels ...string) {
	s.update(name, labels, func(c *Counter) { c.Value = v })
}

func (s *Set) update(name string, labels []string, f func(*Counter)) {
	m, ok := Find(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || m.Type == HistogramType || len(m.Labels) != len(labels) {
		s.unknown++
		return
	}
	if s.series == nil {
		s.series, s.number = map[string]*Counter{}, map[string]int{}
	}
	k := key(name, labels)
	c := s.series[k]
	if c == nil {
		if s.number[name] >= MaxSeries {
			labels = slices.Repeat([]string{Other}, len(labels))
			k = key(name, labels)
			c = s.series[k]
		}
		if c == nil {
			c = &Counter{Name: name, Labels: cleanAll(labels)}
			s.series[k] = c
			s.number[name]++
		}
	}
	f(c)
}

// Counters returns a copy of all values in a fixed order.
func (s *Set) Counters() []Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Counter, 0, len(s.series)+1)
	for _, c := range s.series {
		out = append(out, Counter{Name: c.Name, Labels: slices.Clone(c.Labels), Value: c.Value})
	}
	if s.unknown > 0 {
		out = append(out, Counter{Name: RejectedName, Value: float64(s.unknown)})
	}
	sortCounters(out)
	return out
}

// Bound makes counters from another process safe to show: it adds up values
// with equal labels, drops names that are not in the table and label lists of
// the wrong length, and keeps to MaxSeries and MaxLabelBytes. What it dropped
// is counted under RejectedName.
func Bound(in []Counter) []Counter {
	var s Set
	for _, c := range in {
		s.Add(c.Name, c.Value, cleanAll(c.Labels)...)
	}
	return s.Counters()
}

func sortCounters(c []Counter) {
	slices.SortFunc(c, func(a, b Counter) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), slices.Compare(a.Labels, b.Labels))
	})
}

func key(name string, labels []string) string {
	return name + "\x00" + strings.Join(cleanAll(labels), "\x00")
}

func cleanAll(labels []string) []string {
	if len(labels) == 0 {
		return nil
	}
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = clean(l)
	}
	return out
}

// clean keeps a label value short, valid UTF-8 and free of control characters.
func clean(s string) string {
	if len(s) > MaxLabelBytes {
		s = s[:MaxLabelBytes]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(s, "_"))
}
