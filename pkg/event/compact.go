// SPDX-License-Identifier: Apache-2.0

package event

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Target is what the event is about in a few words: "tcp example.com:443",
// "A example.com", "GET https://x/y", "/etc/shadow". It may hold bytes chosen
// by a sandbox.
func (e *Event) Target() string {
	switch e.Kind {
	case KindNetwork:
		return words(firstOf(e.Proto, e.Activity), e.destination())
	case KindKernelDenial:
		return words(firstOf(e.Proto, e.Activity), firstOf(e.destination(), e.Path, e.SocketInfo))
	case KindDNS:
		return words(firstOf(e.QueryType, "name"), firstOf(e.DstName, "."), e.answer())
	case KindHTTP:
		return words(e.Method, firstOf(e.URL, e.destination()), statusWord(e.Status))
	case KindInference:
		return words(firstOf(e.Provider, e.DstName), e.Operation, firstOf(e.Model, e.URL), statusWord(e.Status), e.tokens(), e.spent())
	case KindExec:
		return firstOf(e.Args, e.Exe, e.Comm, "program")
	case KindExit:
		return words(firstOf(e.Exe, e.Comm, "program"), "status "+strconv.FormatUint(uint64(e.Status), 10))
	case KindSandboxStart:
		return words("sandbox", e.Sandbox, firstOf(e.Args, e.Exe))
	case KindSandboxStop:
		return words("sandbox", e.Sandbox, "status "+strconv.FormatUint(uint64(e.Status), 10))
	case KindFile:
		return words(e.Activity, firstOf(e.Path, "file"))
	case KindSyscall:
		return words("system call", firstOf(e.Object, e.Activity))
	case KindLoss:
		return words(strconv.FormatUint(e.Lost, 10), "records lost", e.Object)
	case KindWorkspace:
		return words(e.Activity, e.Path)
	case KindTamper:
		return words(firstOf(e.Activity, "hostile input"), firstOf(e.Path, e.Object))
	}
	return words(e.Activity, firstOf(e.Object, e.Path), statusWord(e.Status))
}

func (e *Event) destination() string {
	if e.DstName != "" {
		_, port := endpointAddr(e.DstAddr, e.DstPort)
		if port != 0 {
			return net.JoinHostPort(e.DstName, strconv.Itoa(int(port)))
		}
		return e.DstName
	}
	if e.DstAddr != "" && e.DstPort != 0 && !strings.Contains(e.DstAddr, "]:") && strings.Count(e.DstAddr, ":") != 1 {
		return net.JoinHostPort(e.DstAddr, strconv.Itoa(int(e.DstPort)))
	}
	return e.DstAddr
}

// answer is the response code of a DNS answer. A profile with explain answers a
// refused question without an error, which would read as if it were allowed.
func (e *Event) answer() string {
	if e.Decides() && e.Verdict == Denied && e.RCode == "NOERROR" {
		return firstOf(e.Detail, "answered without an address")
	}
	return e.RCode
}

func (e *Event) tokens() string {
	if e.TokensIn == 0 && e.TokensOut == 0 {
		return ""
	}
	return strconv.FormatUint(e.TokensIn, 10) + "+" + strconv.FormatUint(e.TokensOut, 10) + " tokens"
}

func statusWord(s uint32) string {
	if s == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(s), 10)
}

func words(s ...string) string {
	out := ""
	for _, w := range s {
		switch {
		case w == "":
		case out == "":
			out = w
		default:
			out += " " + w
		}
	}
	return out
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	reset  = "\x1b[0m"
)

// Compact turns one line of the log into one readable line without a newline,
// in local time:
//
//	11:02:03 DENIED  net   invoice-bot  tcp 1.2.3.4:443 (curl 4711)  no rule allows it
//
// Every control character of the record is shown escaped. A line that is no
// record of ours is shown escaped, whole and marked.
func Compact(line []byte, color bool) string {
	e, err := ParseOCSF(line)
	if err != nil {
		return "-------- INVALID " + Printable(string(line), 200)
	}
	return e.Compact(color)
}

// Compact is the one-line form of the event; see the function [Compact].
func (e *Event) Compact(color bool) string {
	var b strings.Builder
	b.WriteString(e.Time.In(time.Local).Format("15:04:05"))
	b.WriteByte(' ')
	word, paint := e.verdictWord()
	if !color {
		paint = ""
	}
	b.WriteString(paint)
	fmt.Fprintf(&b, "%-8s", word)
	if paint != "" {
		b.WriteString(reset)
	}
	short := "?"
	if k := kindTable(e.Kind); k != nil {
		short = k.short
	}
	fmt.Fprintf(&b, "%-6s", short)
	who := Printable(firstOf(scopeSegment(e.Scope, "agent"), e.Sandbox, "-"), 40)
	fmt.Fprintf(&b, "%-11s  ", who)
	b.WriteString(Printable(e.Target(), 200))
	if e.PID != 0 && e.Kind != KindSandboxStart && e.Kind != KindSandboxStop {
		fmt.Fprintf(&b, " (%s)", strings.TrimSpace(Printable(e.Comm, 32)+" "+strconv.FormatUint(uint64(e.PID), 10)))
	}
	if e.Count > 1 {
		fmt.Fprintf(&b, " x%d", e.Count)
	}
	if e.Reason != "" {
		b.WriteString("  ")
		b.WriteString(Printable(e.Reason, 300))
	}
	if e.Shadow != "" {
		b.WriteString("  (shadow: ")
		b.WriteString(Printable(e.Shadow, 300))
		b.WriteByte(')')
	}
	if e.Sequence != 0 {
		fmt.Fprintf(&b, "  #%d", e.Sequence) // what `ringfence explain` takes
	}
	return b.String()
}

func (e *Event) verdictWord() (word, paint string) {
	switch {
	case e.Kind == KindLoss:
		return "LOST", yellow
	case e.Kind == KindTamper:
		return "ALERT", yellow
	case !e.Decides() || e.Verdict == Observed:
		return "info", dim
	case e.Failed:
		return "failed", yellow
	case e.Verdict == Allowed:
		return "allowed", green
	}
	return "DENIED", red
}

// Printable makes text that a sandbox may have chosen safe to show on a
// terminal: whatever is not a visible character or a plain space is escaped as
// in a Go string literal, and the result is cut after limit input bytes with
// "..." (limit 0: never).
func Printable(s string, limit int) string {
	cut := false
	if limit > 0 && len(s) > limit {
		s, cut = cutString(s, limit), true
	}
	clean := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c >= 0x7f {
			clean = false
			break
		}
	}
	if clean && !cut {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == ' ' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	if cut {
		b.WriteString("...")
	}
	return b.String()
}
