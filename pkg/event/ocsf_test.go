// SPDX-License-Identifier: Apache-2.0

package event_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/event/ocsftest"
)

var node = event.Node{UID: "node-1", Hostname: "node.test", Version: "0.0.1", Kernel: "6.18.0"}

// full fills every field with something plausible.
func full(k event.Kind) event.Event {
	at := time.Date(2026, 3, 4, 11, 2, 3, 456e6, time.UTC)
	return event.Event{
		Kind: k, Time: at, End: at.Add(time.Second), Count: 3, Source: "gateway", Severity: event.SeverityHigh, Verdict: event.Denied,
		Activity: "connect", Sandbox: "sb-1", Scope: "org:acme/team:red/agent:invoice-bot", Direction: "local",
		Reason: "no rule allows it", ReasonCode: "no-rule", Layer: "kernel", Rule: "engineering/no-paste", RuleAt: "a.yaml:7", Revision: 12,
		Remedy: "ringfence allow example.com:443", Proto: "tcp", SrcAddr: "198.18.0.1:40000", DstAddr: "[2001:db8::1]:443", DstName: "example.com",
		DstPort: 443, PeerAddr: "192.0.2.7:443", QueryType: "A", RCode: "NXDOMAIN", Method: "POST", URL: "https://example.com:8443/v1/x?y=z",
		Status: 403, BytesIn: 10, BytesOut: 20, Duration: 1500 * time.Millisecond, PID: 4711, PPID: 4700, UID: 1000, Exe: "/usr/bin/curl",
		Comm: "curl", Args: "curl https://example.com", Parents: "4700:bash < 4600:node", SocketInfo: "family=17 type=3 protocol=768",
		Path: "/etc/shadow", Provider: "openai", Model: "gpt-5", ModelServed: "gpt-5-mini", Operation: "chat", Stream: true, TokensIn: 100,
		TokensOut: 50, TokensCached: 25, Estimated: true, Credential: "injected", RequestID: "req_1", Actor: "uid=1000(alice)",
		Object: "engineering", Detail: "detail", Lost: 9, Version: "0.0.1", ID: "0123456789abcdef-7", Sequence: 7, Truncated: true,
		Logged: at.Add(time.Millisecond), Failed: true,
		TokensCacheWrite5m: 11, TokensCacheWrite1h: 12, TokensReasoning: 13, TokensAudioIn: 14, TokensAudioOut: 15, TokensImageIn: 16, TokensImageOut: 17,
		Images: 18, WebSearches: 19, Cost: 1234567, Price: event.PriceKnown, PriceVersion: "2026-11", PriceModel: "openai/gpt-5",
	}
}

// hostile fills every text with bytes that break naive encoders and every
// number with its largest value.
func hostile(k event.Kind) event.Event {
	e := event.Event{Kind: k}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case f.Kind() == reflect.String:
			f.SetString("\"\\\x00\x1b[31m\r\n\xff\xfe\u2028\u202e</script>{}[],:'\x7f\u0085 " + strings.Repeat("é", 3) + "\xc3")
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(time.Unix(253402300799, 0)))
		case f.Type() == reflect.TypeFor[event.Kind](), f.Type() == reflect.TypeFor[event.Verdict](), f.Type() == reflect.TypeFor[event.Severity]():
		case f.CanUint():
			f.SetUint(math.MaxUint64 >> (64 - f.Type().Bits()))
		case f.CanInt():
			f.SetInt(math.MaxInt64)
		}
	}
	return e
}

// fixed lists deliberate odd values that full and hostile do not reach.
func odd(k event.Kind) []event.Event {
	base := event.Event{Kind: k, Time: time.Unix(1700000000, 0)}
	var out []event.Event
	add := func(f func(e *event.Event)) {
		e := base
		f(&e)
		out = append(out, e)
	}
	for _, v := range []event.Verdict{event.Denied, event.Allowed, event.Observed, 77} {
		add(func(e *event.Event) { e.Verdict = v })
	}
	for s := range event.Severity(8) {
		add(func(e *event.Event) { e.Severity = s })
	}
	for _, a := range []string{"start", "stop", "reload", "create", "apply", "refuse", "delete", "open", "close", "listen", "read", "fs.read_file",
		"fs.refer,fs.make_reg", "Fs.Execute", "list", "run", "response", "models", "odd thing"} {
		add(func(e *event.Event) { e.Activity, e.Operation, e.Verdict = a, a, event.Allowed })
	}
	for _, m := range []string{"GET", "CONNECT", "PATCH", "PROPFIND", "get", "x\ny"} {
		add(func(e *event.Event) { e.Method = m })
	}
	for _, a := range []string{"1.2.3.4", "1.2.3.4:5", "::1", "[::1]:5", "fe80::1%eth0", "[fe80::1%eth0]:5", "::ffff:1.2.3.4", "nonsense", "1.2.3.4:99999", ":"} {
		add(func(e *event.Event) { e.DstAddr, e.SrcAddr = a, a })
	}
	for _, r := range []string{"NOERROR", "nxdomain", "BADVERS", "x"} {
		add(func(e *event.Event) { e.RCode = r })
	}
	for _, u := range []string{"http://[::1", "//", "https://h:99999/", "https://u:p@h/", "%zz", "/path"} {
		add(func(e *event.Event) { e.URL = u })
	}
	for _, p := range []string{"1:a < 2:b", "x", "99999999999:a", "1:a < ", ":", "1: < 2:b c:d"} {
		add(func(e *event.Event) { e.Parents, e.PID = p, 5 })
	}
	for _, r := range []string{"x", "/", "/x", "a/b/c"} {
		add(func(e *event.Event) { e.Rule = r })
	}
	add(func(e *event.Event) { e.Time = time.Time{} })
	add(func(e *event.Event) { e.Sandbox, e.Scope = "sb", "not:a/scope/at all" })
	add(func(e *event.Event) { e.Sandbox = "sb" })
	add(func(e *event.Event) { e.Scope = "org:" })
	add(func(e *event.Event) { e.Provider, e.Model = "", "m" })
	add(func(e *event.Event) { e.Provider, e.ModelServed = "p", "" })
	add(func(e *event.Event) { e.PID, e.UID = math.MaxUint32, math.MaxUint32 })
	add(func(e *event.Event) { e.DstName = "." })
	add(func(e *event.Event) { e.Failed, e.Verdict = true, event.Allowed })
	add(func(e *event.Event) { e.Failed, e.Sandbox, e.Scope = true, "", "" })
	add(func(e *event.Event) { e.Failed, e.Scope = false, `,"failed":true` })
	add(func(e *event.Event) { e.PeerAddr = "192.0.2.1 192.0.2.2" })
	return out
}

func TestEveryKindIsValidOCSF(t *testing.T) {
	schema := ocsftest.Load(t)
	if schema.Version != event.SchemaVersion {
		t.Fatalf("schema %s", schema.Version)
	}
	for _, k := range event.Kinds() {
		cases := append(odd(k), full(k), hostile(k), event.Event{Kind: k}, event.Event{Kind: k, Time: time.Now()})
		for i := range cases {
			for _, n := range []event.Node{node, {}} {
				t.Run(fmt.Sprintf("%s/%d/%s", k, i, n.UID), func(t *testing.T) {
					e := cases[i]
					line, err := e.AppendOCSF(nil, n)
					if err != nil {
						t.Fatal(err)
					}
					for _, p := range schema.Validate(line) {
						t.Errorf("%s", p)
					}
					if t.Failed() {
						t.Logf("%s", line)
					}
					checkShape(t, &e, line)
				})
			}
		}
	}
}

// checkShape holds what readers of the log rely on.
func checkShape(t *testing.T, e *event.Event, line []byte) {
	t.Helper()
	if !bytes.HasSuffix(line, []byte(event.Tail)) || !bytes.HasPrefix(line, []byte(`{"time":`)) {
		t.Errorf("member order: %s", line)
	}
	for _, r := range string(line) {
		if r < 0x20 || r == 0x7f || r >= 0x80 && r <= 0x9f || r == 0x2028 || r == 0x202e || r == utf8.RuneError {
			t.Errorf("%U stands in the line unescaped", r)
		}
	}
	h, err := event.PeekOCSF(line)
	if err != nil {
		t.Fatalf("peek: %v", err)
	}
	p, err := event.ParseOCSF(line)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	if h.Kind != e.Kind || h.Kind != p.Kind || h.Verdict != p.Verdict || h.Sandbox != p.Sandbox || h.Scope != p.Scope || h.Sequence != p.Sequence || h.ID != p.ID {
		t.Errorf("peek %q %q %d %q\nparse %q %q %d %q", h.Sandbox, h.Scope, h.Sequence, h.ID, p.Sandbox, p.Scope, p.Sequence, p.ID)
	}
	if h.Denial() != p.IsDenial() {
		t.Error("peek and parse disagree about a denial")
	}
	if h.Failed != e.Failed || h.Failure() != p.IsFailure() || p.IsDenial() && p.IsFailure() {
		t.Errorf("failed: %v, peek %v %v, parse %v", e.Failed, h.Failed, h.Failure(), p.IsFailure())
	}
	if !p.Time.IsZero() && !h.Time.Equal(p.Time) {
		t.Errorf("time %v and %v", h.Time, p.Time)
	}
	if one := event.Compact(line, true); strings.ContainsAny(one, "\n\r\x00\x7f\u0085\u202e") || strings.Count(one, "\x1b[") != 2 {
		t.Errorf("not one safe line: %q", one)
	}
}

func TestSourceOfUnknownKindIsAnError(t *testing.T) {
	for _, k := range []event.Kind{event.KindInvalid, 999, math.MaxUint16} {
		e := event.Event{Kind: k}
		if b, err := e.AppendOCSF([]byte("keep"), node); err == nil || string(b) != "keep" {
			t.Errorf("kind %d: %q %v", k, b, err)
		}
	}
}

// What goes in comes back, to the precision that OCSF has.
func TestParseIsTheInverse(t *testing.T) {
	for _, k := range event.Kinds() {
		e := full(k)
		line, err := e.AppendOCSF(nil, node)
		if err != nil {
			t.Fatal(err)
		}
		got, err := event.ParseOCSF(line)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range carried(k) {
			a, b := field(&e, f), field(&got, f)
			if !reflect.DeepEqual(a, b) {
				t.Errorf("%s: %s is %v, was %v", k, f, b, a)
			}
		}
	}
}

// carried lists the fields that a record of a kind must carry.
func carried(k event.Kind) []string {
	f := []string{
		"Kind", "Time", "End", "Count", "Source", "Severity", "Verdict", "Activity", "Sandbox", "Scope", "Reason", "ReasonCode", "Layer",
		"Revision", "Remedy", "Status", "Duration", "PID", "Exe", "Comm", "Args", "PPID", "UID", "Parents", "Path", "Actor", "Object", "Detail",
		"ID", "Sequence", "Truncated", "Logged", "Proto", "Method", "PeerAddr", "SocketInfo", "Lost", "Failed",
	}
	e := event.Event{Kind: k}
	if e.Decides() {
		f = append(f, "Rule", "RuleAt")
	}
	switch k {
	case event.KindNetwork, event.KindKernelDenial, event.KindHTTP:
		f = append(f, "SrcAddr", "DstAddr", "DstName", "Direction", "BytesIn", "BytesOut")
	case event.KindDNS:
		f = append(f, "DstName", "QueryType", "RCode", "Direction")
	case event.KindInference:
		f = append(f, "Provider", "Model", "ModelServed", "Operation", "Stream", "TokensIn", "TokensOut", "TokensCached", "Estimated",
			"Credential", "RequestID", "URL", "BytesIn", "BytesOut", "DstName")
	}
	switch k {
	case event.KindHTTP:
		f = append(f, "URL", "RequestID")
	case event.KindApproval:
		f = append(f, "RequestID")
	}
	return f
}

func field(e *event.Event, name string) any {
	return reflect.ValueOf(e).Elem().FieldByName(name).Interface()
}

func TestQuoting(t *testing.T) {
	for in, want := range map[string]string{
		"plain":            `"plain"`,
		"a\"b\\c":          `"a\"b\\c"`,
		"\n\r\t\x00\x1b":   `"\n\r\t\u0000\u001b"`,
		"\x7f":             `"\u007f"`,
		"\xff":             `"\ufffd"`,
		"a\xc3":            `"a\ufffd"`,
		"\xed\xa0\x80":     `"\ufffd\ufffd\ufffd"`,
		"é€😀":              `"é€😀"`,
		"\u0085\u2028":     `"\u0085\u2028"`,
		"\u202eabc\u2066":  `"\u202eabc\u2066"`,
		"</script>":        `"</script>"`,
		"\ufeff\u200f":     `"\ufeff\u200f"`,
		"\u00a0\U0001f600": "\"\u00a0\U0001f600\"",
	} {
		e := event.Event{Kind: event.KindDaemon, Detail: in}
		line, err := e.AppendOCSF(nil, node)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(line, []byte(`"detail":`+want)) {
			t.Errorf("%q: no %s in %s", in, want, line)
		}
	}
}

func FuzzOCSF(f *testing.F) {
	f.Add(uint16(1), "host", "1.2.3.4:5", "https://h/p", "reason", uint32(5))
	f.Add(uint16(5), "a\xff", "::1", "%", "\x00\"", uint32(0))
	f.Fuzz(func(t *testing.T, kind uint16, host, addr, url, text string, n uint32) {
		e := event.Event{
			Kind: event.Kind(kind%19) + 1, Time: time.Unix(int64(n), 0), DstName: host, DstAddr: addr, SrcAddr: addr, URL: url, Reason: text, Sandbox: text,
			Scope: text, Activity: text, Method: host, PID: n, Parents: text, Rule: text, Model: host, Path: url, PeerAddr: addr, RCode: host,
		}
		line, err := e.AppendOCSF(nil, node)
		if err != nil {
			return
		}
		if !json.Valid(line) {
			t.Fatalf("not JSON: %q", line)
		}
		h, err := event.PeekOCSF(line)
		if err != nil {
			t.Fatal(err)
		}
		p, err := event.ParseOCSF(line)
		if err != nil {
			t.Fatal(err)
		}
		if h.Sandbox != p.Sandbox || h.Scope != p.Scope || h.Kind != p.Kind {
			t.Fatalf("peek %+v parse %+v", h, p)
		}
		event.Compact(line, true)
	})
}

func FuzzPeek(f *testing.F) {
	e := full(event.KindNetwork)
	line, _ := e.AppendOCSF(nil, node)
	f.Add(line)
	f.Add([]byte(`{"time":1,"metadata":{"uid":"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		event.PeekOCSF(b)
		event.ParseOCSF(b)
		if s := event.Compact(b, false); strings.ContainsAny(s, "\n\x1b") {
			t.Fatalf("%q", s)
		}
	})
}

func BenchmarkAppendOCSF(b *testing.B) {
	e := full(event.KindNetwork)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = e.AppendOCSF(buf[:0], node)
	}
	b.SetBytes(int64(len(buf)))
}
