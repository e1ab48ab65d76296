// SPDX-License-Identifier: Apache-2.0

package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// The wire form of an event, used between our own processes:
//
//	length  uvarint   bytes that follow, at most MaxWire
//	fields  id uint8, then by type: number = uvarint, text = uvarint length
//	        and bytes, time = uvarint seconds since 1970 and uvarint
//	        nanoseconds, flag = nothing
//
// Fields come in ascending order of id, each at most once, and a field with
// the zero value is absent: every event has exactly one encoding. An unknown
// id, a text above its limit, a number above its range, an over-long varint or
// a byte too many is an error. ID, Sequence and Logged are not on the wire:
// only the log sets them.

// MaxWire bounds the fields of one event in bytes. The limits of all fields
// together stay below it.
const MaxWire = 64 << 10

// ErrWire is returned for bytes that are not the encoding of an event.
var ErrWire = errors.New("event: malformed wire form")

type fieldType uint8

const (
	typeText fieldType = iota
	typeNumber
	typeTime
	typeFlag
)

// field is one row of the table. limit is in bytes for text and the largest
// value for numbers.
type field struct {
	id    uint8
	typ   fieldType
	limit uint64
	text  func(*Event) *string
	time  func(*Event) *time.Time
	get   func(*Event) uint64
	set   func(*Event, uint64)
	flag  func(*Event) *bool
}

func text(id uint8, limit uint64, f func(*Event) *string) field {
	return field{id: id, typ: typeText, limit: limit, text: f}
}

func moment(id uint8, f func(*Event) *time.Time) field {
	return field{id: id, typ: typeTime, time: f}
}

func flag(id uint8, f func(*Event) *bool) field { return field{id: id, typ: typeFlag, flag: f} }

type unsigned interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64
}

func number[T unsigned](id uint8, f func(*Event) *T) field {
	return field{
		id: id, typ: typeNumber, limit: uint64(^T(0)),
		get: func(e *Event) uint64 { return uint64(*f(e)) },
		set: func(e *Event, v uint64) { *f(e) = T(v) },
	}
}

// fields is the table of everything on the wire, in ascending order of id.
// Ids are stable: append only. Read only after initialisation.
var fields = []field{
	number(1, func(e *Event) *Kind { return &e.Kind }),
	moment(2, func(e *Event) *time.Time { return &e.Time }),
	moment(3, func(e *Event) *time.Time { return &e.End }),
	number(4, func(e *Event) *uint64 { return &e.Count }),
	text(5, 32, func(e *Event) *string { return &e.Source }),
	number(6, func(e *Event) *Severity { return &e.Severity }),
	number(7, func(e *Event) *Verdict { return &e.Verdict }),
	text(8, 128, func(e *Event) *string { return &e.Activity }),
	text(9, 64, func(e *Event) *string { return &e.Sandbox }),
	text(10, 512, func(e *Event) *string { return &e.Scope }),
	text(11, 16, func(e *Event) *string { return &e.Direction }),
	text(12, 1024, func(e *Event) *string { return &e.Reason }),
	text(13, 64, func(e *Event) *string { return &e.ReasonCode }),
	text(14, 32, func(e *Event) *string { return &e.Layer }),
	text(15, 256, func(e *Event) *string { return &e.Rule }),
	text(16, 512, func(e *Event) *string { return &e.RuleAt }),
	number(17, func(e *Event) *uint64 { return &e.Revision }),
	text(18, 512, func(e *Event) *string { return &e.Remedy }),
	text(19, 32, func(e *Event) *string { return &e.Proto }),
	text(20, 64, func(e *Event) *string { return &e.SrcAddr }),
	text(21, 64, func(e *Event) *string { return &e.DstAddr }),
	text(22, 256, func(e *Event) *string { return &e.DstName }),
	number(23, func(e *Event) *uint16 { return &e.DstPort }),
	text(24, 512, func(e *Event) *string { return &e.PeerAddr }),
	text(25, 16, func(e *Event) *string { return &e.QueryType }),
	text(26, 32, func(e *Event) *string { return &e.RCode }),
	text(27, 64, func(e *Event) *string { return &e.Method }),
	text(28, 2048, func(e *Event) *string { return &e.URL }),
	number(29, func(e *Event) *uint32 { return &e.Status }),
	number(30, func(e *Event) *uint64 { return &e.BytesIn }),
	number(31, func(e *Event) *uint64 { return &e.BytesOut }),
	{
		id: 32, typ: typeNumber, limit: 1<<63 - 1,
		get: func(e *Event) uint64 { return uint64(max(e.Duration, 0)) },
		set: func(e *Event, v uint64) { e.Duration = time.Duration(v) },
	},
	number(33, func(e *Event) *uint32 { return &e.PID }),
	number(34, func(e *Event) *uint32 { return &e.PPID }),
	number(35, func(e *Event) *uint32 { return &e.UID }),
	text(36, 4096, func(e *Event) *string { return &e.Exe }),
	text(37, 64, func(e *Event) *string { return &e.Comm }),
	text(38, 4096, func(e *Event) *string { return &e.Args }),
	text(39, 1024, func(e *Event) *string { return &e.Parents }),
	text(40, 128, func(e *Event) *string { return &e.SocketInfo }),
	text(41, 4096, func(e *Event) *string { return &e.Path }),
	text(42, 64, func(e *Event) *string { return &e.Provider }),
	text(43, 256, func(e *Event) *string { return &e.Model }),
	text(44, 256, func(e *Event) *string { return &e.ModelServed }),
	text(45, 64, func(e *Event) *string { return &e.Operation }),
	flag(46, func(e *Event) *bool { return &e.Stream }),
	number(47, func(e *Event) *uint64 { return &e.TokensIn }),
	number(48, func(e *Event) *uint64 { return &e.TokensOut }),
	number(49, func(e *Event) *uint64 { return &e.TokensCached }),
	flag(50, func(e *Event) *bool { return &e.Estimated }),
	text(51, 32, func(e *Event) *string { return &e.Credential }),
	text(52, 256, func(e *Event) *string { return &e.RequestID }),
	text(53, 256, func(e *Event) *string { return &e.Actor }),
	text(54, 512, func(e *Event) *string { return &e.Object }),
	text(55, 4096, func(e *Event) *string { return &e.Detail }),
	number(56, func(e *Event) *uint64 { return &e.Lost }),
	text(57, 64, func(e *Event) *string { return &e.Version }),
	flag(58, func(e *Event) *bool { return &e.Truncated }),
	flag(59, func(e *Event) *bool { return &e.Failed }),
	number(60, func(e *Event) *uint64 { return &e.DatagramsIn }),
	number(61, func(e *Event) *uint64 { return &e.DatagramsOut }),
	text(62, 320, func(e *Event) *string { return &e.Shadow }),
	text(63, 512, func(e *Event) *string { return &e.Route }),
	text(64, 2048, func(e *Event) *string { return &e.Tried }),
	number(65, func(e *Event) *uint64 { return &e.TokensCacheWrite5m }),
	number(66, func(e *Event) *uint64 { return &e.TokensCacheWrite1h }),
	number(67, func(e *Event) *uint64 { return &e.TokensReasoning }),
	number(68, func(e *Event) *uint64 { return &e.TokensAudioIn }),
	number(69, func(e *Event) *uint64 { return &e.TokensAudioOut }),
	number(70, func(e *Event) *uint64 { return &e.TokensImageIn }),
	number(71, func(e *Event) *uint64 { return &e.TokensImageOut }),
	number(72, func(e *Event) *uint64 { return &e.Images }),
	number(73, func(e *Event) *uint64 { return &e.WebSearches }),
	number(74, func(e *Event) *uint64 { return &e.Cost }),
	text(75, 16, func(e *Event) *string { return &e.Price }),
	text(76, 64, func(e *Event) *string { return &e.PriceVersion }),
	text(77, 384, func(e *Event) *string { return &e.PriceModel }),
	text(78, 32, func(e *Event) *string { return &e.TraceID }),
	text(79, 16, func(e *Event) *string { return &e.SpanID }),
	text(80, 16, func(e *Event) *string { return &e.ParentSpanID }),
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// Normalise brings the event within the limits of the table: texts are cut at
// a rune border and Truncated is set; times are made UTC without a monotonic
// part and clamped to the years 1970 to 9999, negative durations become zero.
// Normalising twice changes nothing.
func (e *Event) Normalise() {
	for i := range fields {
		f := &fields[i]
		switch f.typ {
		case typeText:
			s := f.text(e)
			if uint64(len(*s)) > f.limit {
				*s = cutString(*s, int(f.limit))
				e.Truncated = true
			}
		case typeTime:
			normaliseTime(f.time(e))
		}
	}
	e.Duration = max(e.Duration, 0)
}

func normaliseTime(t *time.Time) {
	if t.IsZero() {
		*t = time.Time{}
		return
	}
	*t = time.Unix(min(max(t.Unix(), 0), maxSeconds), int64(t.Nanosecond())).UTC()
}

// cutString keeps at most limit bytes and does not cut a rune in two.
func cutString(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	n := limit
	for n > 0 && n > limit-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	if !utf8.RuneStart(s[n]) { // not UTF-8 anyway
		n = limit
	}
	return s[:n]
}

// AppendWire appends the wire form. What does not fit is truncated as by
// Normalise, in the wire form only.
func (e *Event) AppendWire(dst []byte) []byte {
	c := *e
	c.Normalise()
	// The length is written in three bytes' room and moved back when shorter.
	const room = 3
	start := len(dst)
	dst = append(dst, 0, 0, 0)
	for i := range fields {
		dst = fields[i].append(dst, &c)
	}
	body := dst[start+room:]
	var head [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(head[:], uint64(len(body)))
	copy(dst[start+n:], body)
	copy(dst[start:], head[:n])
	return dst[:start+n+len(body)]
}

func (f *field) append(dst []byte, e *Event) []byte {
	switch f.typ {
	case typeText:
		if s := *f.text(e); s != "" {
			dst = binary.AppendUvarint(append(dst, f.id), uint64(len(s)))
			dst = append(dst, s...)
		}
	case typeNumber:
		if v := f.get(e); v != 0 {
			dst = binary.AppendUvarint(append(dst, f.id), v)
		}
	case typeTime:
		if t := *f.time(e); !t.IsZero() {
			dst = binary.AppendUvarint(append(dst, f.id), uint64(t.Unix()))
			dst = binary.AppendUvarint(dst, uint64(t.Nanosecond()))
		}
	case typeFlag:
		if *f.flag(e) {
			dst = append(dst, f.id)
		}
	}
	return dst
}

// DecodeWire reads one event from the front of b and returns what follows it.
// It accepts exactly what AppendWire writes. The bytes may come from a
// compromised peer: the caller overwrites Source and checks Sandbox.
func DecodeWire(b []byte) (e Event, rest []byte, err error) {
	n, b, ok := cutUvarint(b)
	if !ok || n > MaxWire || n > uint64(len(b)) {
		return Event{}, nil, fmt.Errorf("%w: length", ErrWire)
	}
	body, rest := b[:n], b[n:]
	next := 0
	for len(body) > 0 {
		id := body[0]
		for next < len(fields) && fields[next].id < id {
			next++
		}
		if next == len(fields) || fields[next].id != id {
			return Event{}, nil, fmt.Errorf("%w: field %d is unknown or out of order", ErrWire, id)
		}
		f := &fields[next]
		next++
		if body, ok = f.decode(body[1:], &e); !ok {
			return Event{}, nil, fmt.Errorf("%w: field %d", ErrWire, id)
		}
	}
	if kindTable(e.Kind) == nil {
		return Event{}, nil, fmt.Errorf("%w: %w %d", ErrWire, ErrKind, e.Kind)
	}
	if e.Verdict > Observed || e.Severity > SeverityCritical {
		return Event{}, nil, fmt.Errorf("%w: verdict or severity", ErrWire)
	}
	return e, rest, nil
}

func (f *field) decode(b []byte, e *Event) ([]byte, bool) {
	switch f.typ {
	case typeFlag:
		*f.flag(e) = true
		return b, true
	case typeTime:
		sec, b, ok := cutUvarint(b)
		if !ok || sec > maxSeconds {
			return b, false
		}
		nsec, b, ok := cutUvarint(b)
		if !ok || nsec >= uint64(time.Second) {
			return b, false
		}
		*f.time(e) = time.Unix(int64(sec), int64(nsec)).UTC()
		return b, true
	}
	v, b, ok := cutUvarint(b)
	if !ok || v == 0 || v > f.limit {
		return b, false
	}
	if f.typ == typeNumber {
		f.set(e, v)
		return b, true
	}
	if v > uint64(len(b)) {
		return b, false
	}
	*f.text(e) = string(b[:v])
	return b[v:], true
}

// cutUvarint accepts the shortest form only.
func cutUvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, b, false
	}
	return v, b[n:], true
}
