// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

func appendInt(b []byte, v int64) []byte { return strconv.AppendInt(b, v, 10) }

// ErrFormat is returned for a line that is not a record made by AppendOCSF.
var ErrFormat = errors.New("event: not a Ringfence OCSF record")

// Header is what [PeekOCSF] reads of a record.
type Header struct {
	Time     time.Time
	ID       string
	Sequence uint64
	Kind     Kind
	Verdict  Verdict
	Sandbox  string
	Scope    string
	Failed   bool
}

// Denial says whether the record is about something that was refused.
func (h *Header) Denial() bool {
	s := kindTable(h.Kind)
	return s != nil && s.decides && h.Verdict.denied()
}

// Failure says whether the record is about something that was let through and
// failed.
func (h *Header) Failure() bool { return h.Failed && !h.Denial() }

var (
	markTime   = []byte(`{"time":`)
	markUID    = []byte(`"uid":`)
	markMeta   = []byte(`,"metadata":{`)
	markSeq    = []byte(`"sequence":`)
	markOwn    = []byte(`"unmapped":{"ringfence":{"kind":"`)
	markVerd   = []byte(`,"verdict":"`)
	markBox    = []byte(`,"sandbox":`)
	markScope  = []byte(`,"scope":`)
	markFailed = []byte(`,"failed":true`)
	errOwnPart = errors.Join(ErrFormat, errors.New("member order differs"))
)

// PeekOCSF reads the fields that filters need without parsing the record. It
// relies on the member order that AppendOCSF promises: no string value can
// hold the marks it looks for, because a quote inside a string is escaped.
func PeekOCSF(line []byte) (Header, error) {
	var h Header
	rest, ok := bytes.CutPrefix(line, markTime)
	if !ok {
		return h, ErrFormat
	}
	ms, rest, ok := cutInt(rest)
	if !ok {
		return h, ErrFormat
	}
	h.Time = time.UnixMilli(ms).UTC()
	var err error
	if rest, ok = bytes.CutPrefix(rest, markMeta); !ok {
		return h, ErrFormat
	}
	if h.ID, rest, err = cutMember(rest, markUID); err != nil {
		return h, err
	}
	rest = bytes.TrimPrefix(rest, []byte{','})
	if r, ok := bytes.CutPrefix(rest, markSeq); ok { // absent for a record that is in no log
		seq, _, ok := cutInt(r)
		if !ok || seq < 0 {
			return h, ErrFormat
		}
		h.Sequence = uint64(seq)
	}
	i := bytes.LastIndex(line, markOwn)
	if i < 0 {
		return h, ErrFormat
	}
	own := line[i+len(markOwn):]
	kind, own, ok := bytes.Cut(own, []byte{'"'})
	if !ok {
		return h, errOwnPart
	}
	h.Kind = ParseKind(string(kind))
	if own, ok = bytes.CutPrefix(own, markVerd); !ok {
		return h, errOwnPart
	}
	verdict, own, ok := bytes.Cut(own, []byte{'"'})
	if !ok {
		return h, errOwnPart
	}
	h.Verdict = ParseVerdict(string(verdict))
	if h.Sandbox, own, err = cutMember(own, markBox); err != nil {
		return h, err
	}
	h.Scope, own, err = cutMember(own, markScope)
	h.Failed = bytes.HasPrefix(own, markFailed)
	return h, err
}

func cutInt(b []byte) (int64, []byte, bool) {
	n := 0
	for n < len(b) && (b[n] >= '0' && b[n] <= '9' || n == 0 && b[n] == '-') {
		n++
	}
	v, err := strconv.ParseInt(string(b[:n]), 10, 64)
	return v, b[n:], err == nil
}

// cutMember reads an optional string member that starts with mark.
func cutMember(b, mark []byte) (string, []byte, error) {
	r, ok := bytes.CutPrefix(b, mark)
	if !ok {
		return "", b, nil
	}
	if len(r) == 0 || r[0] != '"' {
		return "", b, errOwnPart
	}
	for i := 1; i < len(r); i++ {
		switch r[i] {
		case '\\':
			i++
		case '"':
			if bytes.IndexByte(r[1:i], '\\') < 0 {
				return string(r[1:i]), r[i+1:], nil
			}
			var s string
			if err := json.Unmarshal(r[:i+1], &s); err != nil {
				return "", b, errOwnPart
			}
			return s, r[i+1:], nil
		}
	}
	return "", b, errOwnPart
}

// line mirrors the members of a record that ParseOCSF gives back.
type parsedLine struct {
	Time     int64 `json:"time"`
	EndTime  int64 `json:"end_time"`
	Duration int64 `json:"duration"`
	Count    uint64
	Metadata struct {
		UID        string
		Sequence   uint64
		Source     string
		Truncated  bool  `json:"is_truncated"`
		LoggedTime int64 `json:"logged_time"`
	}
	SeverityID   uint8  `json:"severity_id"`
	StatusCode   string `json:"status_code"`
	StatusDetail string `json:"status_detail"`
	Rule         struct {
		UID string
		At  string `json:"match_location"`
	} `json:"firewall_rule"`
	Src, Dst   parsedEndpoint `json:"-"`
	SrcRaw     parsedEndpoint `json:"src_endpoint"`
	DstRaw     parsedEndpoint `json:"dst_endpoint"`
	Connection struct {
		DirectionID int `json:"direction_id"`
	} `json:"connection_info"`
	Traffic struct {
		In  uint64 `json:"bytes_in"`
		Out uint64 `json:"bytes_out"`

		PacketsIn  uint64 `json:"packets_in"`
		PacketsOut uint64 `json:"packets_out"`
	}
	Query       struct{ Hostname, Type string }
	RCode       string
	HTTPRequest struct {
		Method string `json:"http_method"`
		URL    struct {
			S string `json:"url_string"`
		} `json:"url"`
	} `json:"http_request"`
	Actor   struct{ Process parsedProcess }
	Process parsedProcess
	App     struct{ Version string }
	API     struct {
		Operation string
		Request   struct{ UID string }
	}
	Message struct {
		In  uint64 `json:"prompt_tokens"`
		Out uint64 `json:"completion_tokens"`
	} `json:"message_context"`
	Unmapped struct{ Ringfence parsedOwn }
}

type parsedEndpoint struct {
	Hostname, IP string
	Port         uint16
}

type parsedProcess struct {
	PID     uint32
	Name    string
	CmdLine string `json:"cmd_line"`
	Path    string
	User    struct{ UID string }
	Parent  struct{ PID uint32 } `json:"parent_process"`
}

type parsedOwn struct {
	Kind, Verdict, Sandbox, Scope, Activity, Layer, Reason, Remedy string
	Proto, Method, Upstream, Socket, Path, Actor, Object, Detail   string
	Provider, Model, Credential, Parents, Route, Tried             string
	Revision, Lost                                                 uint64
	Failed                                                         bool
	Decision, Approval, Shadow                                     string
	ModelServed                                                    string `json:"model_served"`
	TraceID                                                        string `json:"trace_id"`
	SpanID                                                         string `json:"span_id"`
	ParentSpanID                                                   string `json:"parent_span_id"`
	Stream                                                         bool
	TokensCached                                                   uint64 `json:"tokens_cached"`
	Estimated                                                      bool   `json:"tokens_estimated"`
	BytesIn                                                        uint64 `json:"bytes_in"`
	BytesOut                                                       uint64 `json:"bytes_out"`
	parsedSpend
}

// ParseOCSF reads a record made by AppendOCSF back into an event. Times come
// back in milliseconds, invalid UTF-8 as U+FFFD, and numbers above the signed
// 64-bit range as its maximum; the rest survives the way there and back.
func ParseOCSF(line []byte) (Event, error) {
	var p parsedLine
	if err := json.Unmarshal(line, &p); err != nil {
		return Event{}, errors.Join(ErrFormat, err)
	}
	own := &p.Unmapped.Ringfence
	kind := ParseKind(own.Kind)
	if kind == KindInvalid {
		return Event{}, ErrFormat
	}
	e := Event{
		Kind: kind, Verdict: ParseVerdict(own.Verdict), Severity: Severity(p.SeverityID),
		Time: fromMillis(p.Time), End: fromMillis(p.EndTime), Count: p.Count, Duration: time.Duration(p.Duration) * time.Millisecond,
		ID: p.Metadata.UID, Sequence: p.Metadata.Sequence, Source: p.Metadata.Source, Truncated: p.Metadata.Truncated, Logged: fromMillis(p.Metadata.LoggedTime),
		Sandbox: own.Sandbox, Scope: own.Scope, Activity: own.Activity, Layer: own.Layer, Reason: own.Reason, ReasonCode: p.StatusDetail,
		Remedy: own.Remedy, Shadow: own.Shadow, Failed: own.Failed, Revision: own.Revision, Rule: p.Rule.UID, RuleAt: p.Rule.At,
		Proto: own.Proto, Method: own.Method, PeerAddr: own.Upstream, SocketInfo: own.Socket, Path: own.Path, Actor: own.Actor,
		Object: own.Object, Detail: own.Detail, Lost: own.Lost, Parents: own.Parents,
		SrcAddr: p.SrcRaw.addr(), DstAddr: p.DstRaw.addr(), DstName: firstOf(p.DstRaw.Hostname, p.Query.Hostname), DstPort: p.DstRaw.Port,
		QueryType: p.Query.Type, RCode: strings.ToUpper(p.RCode), URL: p.HTTPRequest.URL.S,
		BytesIn: max(p.Traffic.In, own.BytesIn), BytesOut: max(p.Traffic.Out, own.BytesOut),
		DatagramsIn: p.Traffic.PacketsIn, DatagramsOut: p.Traffic.PacketsOut,
		Provider: own.Provider, Model: own.Model, ModelServed: own.ModelServed, Route: own.Route, Tried: own.Tried, TraceID: own.TraceID, SpanID: own.SpanID, ParentSpanID: own.ParentSpanID, Stream: own.Stream, TokensCached: own.TokensCached,
		Estimated: own.Estimated, Credential: own.Credential, TokensIn: p.Message.In, TokensOut: p.Message.Out,
		Operation: p.API.Operation, RequestID: firstOf(p.API.Request.UID, own.Decision, own.Approval), Version: p.App.Version,
	}
	own.parsedSpend.give(&e)
	if p.Connection.DirectionID == 4 {
		e.Direction = "local"
	}
	if status, err := strconv.ParseUint(p.StatusCode, 10, 32); err == nil {
		e.Status = uint32(status)
	}
	proc := &p.Process
	if proc.PID == 0 {
		proc = &p.Actor.Process
	}
	e.PID, e.Comm, e.Args, e.Exe, e.PPID = proc.PID, proc.Name, proc.CmdLine, proc.Path, proc.Parent.PID
	if uid, err := strconv.ParseUint(proc.User.UID, 10, 32); err == nil {
		e.UID = uint32(uid)
	}
	return e, nil
}

func (p *parsedEndpoint) addr() string {
	if p.IP == "" {
		return ""
	}
	if p.Port == 0 {
		return p.IP
	}
	if a, err := netip.ParseAddr(p.IP); err == nil {
		return netip.AddrPortFrom(a, p.Port).String()
	}
	return net.JoinHostPort(p.IP, strconv.Itoa(int(p.Port)))
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
