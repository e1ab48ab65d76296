// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
)

// row is one attempt: what the agent saw, and what was recorded of it.
type row struct {
	saw    observation
	good   bool // what the agent saw is as it should be
	want   want
	event  *event.Event
	harm   string // effect on the host
	proved bool   // the same act succeeded outside
	needs  bool   // a record must exist
}

// want is what must have happened, and which record tells of it.
type want struct {
	id     string
	happen func(observation) bool
	record func(*event.Event) bool
	call   bool // the record needs a kernel that reports refused system calls
}

// virtual is where names of sandboxes live; no packet for it leaves a host.
var virtual = netip.MustParsePrefix("198.18.0.0/15")

func answered(o observation) bool { return o.Error == "" && o.Status == 200 }

func refused(o observation) bool {
	return o.Error != "" && o.Error != "timeout" && o.Error != "dns" && o.Status == 0
}

func forbidden(o observation) bool { return o.Error == "" && o.Status == 403 }

// answeredByUs: the answer of the name server holds nothing but virtual
// addresses.
func answeredByUs(o observation) bool {
	list, ok := strings.CutPrefix(o.Saw, "answered ")
	if !ok {
		return false
	}
	for _, a := range strings.Fields(list) {
		if addr, err := netip.ParseAddr(a); err != nil || !virtual.Contains(addr) {
			return false
		}
	}
	return true
}

func denied(k event.Kind, ok func(*event.Event) bool) func(*event.Event) bool {
	return func(e *event.Event) bool { return e.Kind == k && e.IsDenial() && ok(e) }
}

func address(a string) func(*event.Event) bool {
	return denied(event.KindNetwork, func(e *event.Event) bool { return e.DstAddr == a })
}

func file(suffix string) func(*event.Event) bool {
	return denied(event.KindFile, func(e *event.Event) bool { return strings.HasSuffix(e.Path, suffix) })
}

// socket is a unix socket's path, or the kind of a socket that could not be made.
func socket(part string) func(*event.Event) bool {
	return denied(event.KindKernelDenial, func(e *event.Event) bool { return strings.Contains(e.Path+e.SocketInfo, part) })
}

func call(host string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Kind == event.KindInference && e.Verdict == event.Allowed && strings.Contains(e.DstName+e.URL, host)
	}
}

func wants() []want {
	return []want{
		{id: "openai", happen: answered, record: call("api.openai.com")},
		{id: "anthropic", happen: answered, record: call("api.anthropic.com")},
		{id: "name", happen: forbidden, record: denied(event.KindHTTP, func(e *event.Event) bool { return e.DstName == "example.com" })},
		{id: "ip", happen: refused, record: address("1.1.1.1:443")},
		{id: "udp", happen: refused, record: address("8.8.8.8:443")},
		{id: "dns", happen: answeredByUs, record: denied(event.KindDNS, func(e *event.Event) bool { return e.DstName == "what-i-stole.attacker.example" })},
		{id: "ssh", happen: refused, record: file("/.ssh/id_ed25519"), call: true},
		{id: "shadow", happen: refused, record: file("/etc/shadow"), call: true},
		{id: "write", happen: refused, record: file("/outside"), call: true},
		{id: "usr", happen: refused, record: file("/usr/local/bin/demo-agent-was-here"), call: true},
		{id: "docker0", happen: refused, record: socket("/var/run/docker.sock"), call: true},
		{id: "docker1", happen: refused, record: socket("/ringfence-quickstart-"), call: true},
		{id: "raw", happen: refused, record: socket("family=2 type=3 "), call: true},
		{id: "packet", happen: refused, record: socket("family=17 "), call: true},
	}
}

// expectations joins what must happen with what the agent saw. An attempt that
// the agent did not report is a row of its own, and wrong.
func expectations(saw []observation, w *world) []row {
	var rows []row
	for _, want := range wants() {
		r := row{want: want, saw: observation{ID: want.id, Tried: want.id, Saw: "not tried"}}
		for _, o := range saw {
			if o.ID == want.id {
				r.saw, r.good = o, want.happen(o)
			}
		}
		if err, ok := w.controls[want.id]; ok {
			r.proved = err == nil
		}
		if r.harm = w.harm(want.id); r.harm != "" {
			r.good = false
		}
		rows = append(rows, r)
	}
	return rows
}

// match finds each row's record and reports whether all that are needed are
// there.
func match(rows []row, events []event.Event, calls bool) bool {
	all := true
	for i := range rows {
		r := &rows[i]
		r.needs = r.want.record != nil && (!r.want.call || calls)
		for j := range events {
			if r.event == nil && r.want.record != nil && r.want.record(&events[j]) {
				r.event = &events[j]
			}
		}
		all = all && (r.event != nil || !r.needs)
	}
	return all
}

func (r *row) ok() bool { return r.good && (r.event != nil || !r.needs) }

// happened is the second column: the agent's own words.
func (r *row) happened() string {
	text := event.Printable(strings.Join(strings.Fields(r.saw.Saw), " "), 150)
	switch {
	case r.harm != "":
		return "NOT REFUSED: " + r.harm
	case r.saw.Error != "" && r.good:
		return fmt.Sprintf("refused in %.1f ms, %s: %s", r.saw.Millis, r.saw.Error, lastWords(text))
	case r.saw.Status == 403:
		return fmt.Sprintf("refused, %d: %s", r.saw.Status, text)
	case r.saw.Error != "":
		return r.saw.Error + ": " + text
	case r.want.id == "dns" && r.good:
		return text + ", which is in Ringfence's own " + virtual.String() + ": no query left the host"
	case r.saw.Status != 0:
		return fmt.Sprintf("%d: %s", r.saw.Status, text)
	}
	return text
}

// lastWords cuts Go's "dial tcp 1.2.3.4:443: connect: " off an error.
func lastWords(s string) string { return s[strings.LastIndex(s, ": ")+1:] }

// reason is the third column: what the event log says.
func (r *row) reason() string {
	if r.event != nil {
		return r.recorded()
	}
	if r.needs {
		return "NO EVENT: the log should have one"
	}
	return "no event: this kernel reports no refused system calls"
}

func (r *row) recorded() string {
	e := r.event
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s by %s", e.Kind, e.Verdict, e.Layer)
	if e.Kind == event.KindInference {
		fmt.Fprintf(&b, ": provider %s, model %s, %d+%d tokens, credential %s", e.Provider, e.Model, e.TokensIn, e.TokensOut, e.Credential)
	} else {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	if r.proved {
		b.WriteString("; outside the sandbox the same succeeds")
	}
	fmt.Fprintf(&b, " [%s]", e.ID)
	return event.Printable(b.String(), 300)
}

// recordsCalls says whether this kernel lets the daemon record refused system
// calls: it says so when it starts where it does not.
func recordsCalls(events []event.Event) bool {
	return !slices.ContainsFunc(events, func(e event.Event) bool { return e.Kind == event.KindDaemon && e.Activity == "degraded" })
}
