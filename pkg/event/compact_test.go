// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strings"
	"testing"
	"time"
)

func TestCompact(t *testing.T) {
	at := time.Date(2026, 1, 2, 11, 2, 3, 0, time.Local)
	for _, c := range []struct {
		want string
		e    Event
	}{
		{`11:02:03 DENIED  net   invoice-bot  tcp 1.2.3.4:443 (curl 4711)  no rule allows it`,
			Event{Kind: KindNetwork, Scope: "org:a/team:b/agent:invoice-bot", Proto: "tcp", DstAddr: "1.2.3.4:443", Comm: "curl", PID: 4711, Reason: "no rule allows it"}},
		{`11:02:03 allowed net   sb-1         tcp example.com:443`,
			Event{Kind: KindNetwork, Verdict: Allowed, Sandbox: "sb-1", Proto: "tcp", DstName: "example.com", DstPort: 443}},
		{`11:02:03 failed  net   sb-1         tcp example.com:443  it refused the connection`,
			Event{Kind: KindNetwork, Verdict: Allowed, Failed: true, Sandbox: "sb-1", Proto: "tcp", DstName: "example.com", DstPort: 443, Reason: "it refused the connection"}},
		{`11:02:03 DENIED  dns   sb-1         AAAA example.com NXDOMAIN x12`,
			Event{Kind: KindDNS, Sandbox: "sb-1", DstName: "example.com", QueryType: "AAAA", RCode: "NXDOMAIN", Count: 12}},
		{`11:02:03 DENIED  dns   sb-1         A example.com answered with the refusal address  no rule allows it`,
			Event{Kind: KindDNS, Sandbox: "sb-1", DstName: "example.com", QueryType: "A", RCode: "NOERROR", Detail: "answered with the refusal address", Reason: "no rule allows it"}},
		{`11:02:03 DENIED  dns   sb-1         AAAA example.com answered without an address`,
			Event{Kind: KindDNS, Sandbox: "sb-1", DstName: "example.com", QueryType: "AAAA", RCode: "NOERROR"}},
		{`11:02:03 allowed dns   sb-1         A example.com NOERROR`,
			Event{Kind: KindDNS, Verdict: Allowed, Sandbox: "sb-1", DstName: "example.com", QueryType: "A", RCode: "NOERROR"}},
		{`11:02:03 allowed llm   bot          openai chat gpt-5 200 10+20 tokens`,
			Event{Kind: KindInference, Verdict: Allowed, Scope: "org:a/agent:bot", Provider: "openai", Operation: "chat", Model: "gpt-5", Status: 200, TokensIn: 10, TokensOut: 20}},
		{`11:02:03 info    node  -            start ringfenced`, Event{Kind: KindDaemon, Activity: "start", Object: "ringfenced"}},
		{`11:02:03 LOST    loss  -            7 records lost audit log  the disk was full`, Event{Kind: KindLoss, Lost: 7, Object: "audit log", Reason: "the disk was full"}},
		{`11:02:03 DENIED  file  bot          fs.read_file /a\n\x1b[31mb\u202e\xff (a\tb 7)`,
			Event{Kind: KindFile, Scope: "agent:bot", Activity: "fs.read_file", Path: "/a\n\x1b[31mb\u202e\xff", Comm: "a\tb", PID: 7}},
		{`11:02:03 DENIED  sock  bot          family=17 type=3`, Event{Kind: KindKernelDenial, Scope: "agent:bot", SocketInfo: "family=17 type=3", Activity: ""}},
	} {
		c.e.Time = at
		if got := c.e.Compact(false); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
		line, err := c.e.AppendOCSF(nil, Node{})
		if err != nil {
			t.Fatal(err)
		}
		want := strings.ReplaceAll(c.want, `\xff`, "\ufffd") // JSON cannot carry the byte
		if got := Compact(line, false); got != want {
			t.Errorf("through the log\n got %s\nwant %s", got, want)
		}
		if got := Compact(line, true); strings.Count(got, "\x1b[") != 2 {
			t.Errorf("colour: %q", got)
		}
	}
	if got := Compact([]byte("{\"x\":\x1b[2J\n"), true); got != `-------- INVALID {"x":\x1b[2J\n` {
		t.Errorf("foreign line: %q", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":             "",
		"plain text":   "plain text",
		"é😀":           "é😀",
		"\a\x1b]0;x\a": `\a\x1b]0;x\a`,
		"\u200bx":      `\u200bx`,
		"\xc3(":        `\xc3(`,
		"\ufffd":       "\ufffd",
		"a\u00a0b":     `a\u00a0b`,
		"\U000e0041":   `\U000e0041`,
	} {
		if got := Printable(in, 0); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	if got := Printable("ééé", 3); got != "é..." {
		t.Errorf("cut: %q", got)
	}
}
