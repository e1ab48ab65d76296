// SPDX-License-Identifier: Apache-2.0

//go:build ringfence_probe

package gatewayd

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"runtime"
	"runtime/debug"
)

// probe lets benchmarks look into the process beside its metrics: profiles, and what
// it holds after a garbage collection. No release has it.
func probe(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("POST /debug/collect", func(w http.ResponseWriter, _ *http.Request) {
		for range 2 { // what pools hold goes with the second one
			debug.FreeOSMemory()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Fprintf(w, "%d %d\n", m.HeapAlloc, runtime.NumGoroutine())
	})
}
