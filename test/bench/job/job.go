// SPDX-License-Identifier: Apache-2.0

// Package job is what the benchmarks and their client program say to each
// other, one JSON value per line.
package job

// Kinds of jobs.
const (
	Connect = "connect" // a new connection for each request
	Ask     = "ask"     // connections are kept, also from job to job
	DNS     = "dns"     // the name in URL is looked up, nothing else

	Datagram = "datagram" // Body is sent over UDP and must come back

	Paced = "paced" // Rate requests a second, whether answers are there or not; a time begins when it is the request's turn
	Hold  = "hold"  // N streamed requests over HTTP/2 on Conns connections; done when each has said something
	LetGo = "letgo" // the streams that are held are read to their ends

	Stream = "stream" // Size bytes on each of Conns new connections
	Knock  = "knock"  // a new connection with one byte each way
)

// KnockByte is what a knock sends; a stream begins with 0 or 1 and its size.
const KnockByte = 2

// Job is one measurement.
type Job struct {
	Kind  string
	URL   string
	Dial  string // address to connect to; "" resolves the URL's host once, before the clock runs
	Body  string // POST with this body; "" is GET
	N     int    // requests in all
	Conns int    // at the same time
	Roots string // PEM file of the roots; "" trusts the system's
	Size  int64  // bytes of a stream
	Up    bool   // a stream away from the client
	Rate  int    // requests in a second
}

// Result is what one job took, in microseconds per request.
type Result struct {
	P50, P99 float64
	PerSec   float64
	Bytes    int64   // of answers
	Gbit     float64 // the same, per second
	Cipher   string  // of the last TLS connection
	Error    string  // the first one; the job is void
}
