// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"regexp"
	"testing"
)

// The client's trace goes on: the record names it, and the provider's part hangs
// below the gateway's. Without one that can be read the provider gets none.
func TestTracesGoOn(t *testing.T) {
	const id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	f := newFence(t, setup{})
	f.chat(simple, "Traceparent", "00-"+id+"-"+parent+"-01", "Tracestate", "v=secret")
	ev := f.event()
	got := f.double.Last().Header
	if ev.TraceID != id || ev.ParentSpanID != parent || len(ev.SpanID) != 16 || ev.SpanID == parent || got.Get("Traceparent") != "00-"+id+"-"+ev.SpanID+"-01" || got.Get("Tracestate") != "" {
		t.Errorf("%+v %v", ev, got)
	}
	for _, bad := range []string{"", "00-" + id + "-" + parent, "00-00000000000000000000000000000000-" + parent + "-01", "00-" + id + "-0000000000000000-01",
		"01-" + id + "-" + parent + "-01", "00-" + id[:31] + "G-" + parent + "-01", "00-" + id + "-" + parent + "-01-x"} {
		f.chat(simple, "Traceparent", bad)
		ev := f.event()
		if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(ev.TraceID) || ev.TraceID == id || ev.ParentSpanID != "" || f.double.Last().Header.Get("Traceparent") != "" {
			t.Errorf("%q: %+v", bad, ev)
		}
	}
}
