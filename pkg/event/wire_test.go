// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	mathrand "math/rand"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/quick"
	"time"
	"unicode/utf8"
)

// everyField sets each field by reflection, so that a field that is missing in
// the wire table is noticed.
func everyField(text string, n uint64) Event {
	e := Event{}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		f := v.Field(i)
		switch {
		case f.Kind() == reflect.String:
			f.SetString(text)
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(time.Unix(int64(n%maxSeconds), 7).UTC()))
		case f.CanUint():
			f.SetUint(n & (math.MaxUint64 >> (64 - f.Type().Bits())))
		case f.CanInt():
			f.SetInt(int64(n >> 1))
		}
	}
	e.Kind, e.Verdict, e.Severity = KindHTTP, Observed, SeverityLow
	e.ID, e.Sequence, e.Logged = "", 0, time.Time{} // not on the wire
	return e
}

func TestWireRoundTrip(t *testing.T) {
	for _, e := range []Event{{Kind: KindExit}, everyField("x", 1), everyField("\x00\xff", math.MaxUint64), everyField("", 1<<40)} {
		b := append(e.AppendWire([]byte("before")), "after"...)
		got, rest, err := DecodeWire(b[len("before"):])
		if err != nil {
			t.Fatal(err)
		}
		if string(rest) != "after" || !reflect.DeepEqual(got, e) {
			t.Errorf("got  %+v\nwant %+v", got, e)
		}
	}
}

func TestWireRoundTripProperty(t *testing.T) {
	f := func(e Event, kind uint8, sec, nsec uint32) bool {
		e.Kind = Kinds()[int(kind)%len(Kinds())]
		e.Verdict %= 3
		e.Severity %= 6
		e.Time = time.Unix(int64(sec), int64(nsec%1e9)).UTC()
		e.End = time.Time{}
		e.ID, e.Sequence, e.Logged = "", 0, time.Time{}
		want := e
		want.Normalise()
		got, rest, err := DecodeWire(e.AppendWire(nil))
		again := want
		again.Normalise()
		return err == nil && len(rest) == 0 && reflect.DeepEqual(got, want) && reflect.DeepEqual(again, want)
	}
	cfg := &quick.Config{MaxCount: 500, Values: func(args []reflect.Value, r1 *mathrand.Rand) {
		r := rand.New(rand.NewPCG(uint64(r1.Int63()), 1))
		e := Event{}
		v := reflect.ValueOf(&e).Elem()
		for i := range v.NumField() {
			f := v.Field(i)
			switch {
			case r.IntN(3) == 0:
			case f.Kind() == reflect.String:
				f.SetString(randomText(r))
			case f.Kind() == reflect.Bool:
				f.SetBool(true)
			case f.CanUint():
				f.SetUint(r.Uint64() >> r.IntN(64) & (math.MaxUint64 >> (64 - f.Type().Bits())))
			case f.CanInt():
				f.SetInt(r.Int64() - r.Int64())
			}
		}
		args[0] = reflect.ValueOf(e)
		args[1] = reflect.ValueOf(uint8(r.Uint32()))
		args[2], args[3] = reflect.ValueOf(r.Uint32()), reflect.ValueOf(r.Uint32())
	}}
	if err := quick.Check(f, cfg); err != nil {
		t.Error(err)
	}
}

func randomText(r *rand.Rand) string {
	pieces := []string{"a", "é", "€", "😀", "\xff", "\x00", "\n", "\""}
	var b strings.Builder
	for range r.IntN(1 + 1<<r.IntN(13)) {
		b.WriteString(pieces[r.IntN(len(pieces))])
	}
	return b.String()
}

func TestNormaliseCutsAtRunes(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     int
		cut      bool
	}{
		{"short", "abc", 3, false},
		{"exact", strings.Repeat("x", 32), 32, false},
		{"one too many", strings.Repeat("x", 33), 32, true},
		{"two-byte runes", "x" + strings.Repeat("é", 20), 31, true},
		{"four-byte runes", "x" + strings.Repeat("😀", 20), 29, true},
		{"not UTF-8", strings.Repeat("\x80", 40), 32, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := Event{Source: c.in}
			e.Normalise()
			if len(e.Source) != c.want || e.Truncated != c.cut {
				t.Errorf("%d bytes, truncated %v", len(e.Source), e.Truncated)
			}
			if utf8.ValidString(c.in) && !utf8.ValidString(e.Source) {
				t.Error("a rune was cut in two")
			}
		})
	}
	e := Event{Time: time.Unix(-5, 0), End: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), Duration: -1}
	e.Normalise()
	if e.Time.Unix() != 0 || e.End.Year() != 9999 || e.Duration != 0 {
		t.Errorf("%+v", e)
	}
}

func TestDecodeWireRefuses(t *testing.T) {
	frame := func(body ...byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(body))), body...) }
	const kind, source, verdict, seconds, stream = 1, 5, 7, 2, 46
	long := append([]byte{kind, 1, source}, binary.AppendUvarint(nil, 33)...)
	long = append(long, bytes.Repeat([]byte("x"), 33)...)
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"no kind":                 frame(),
		"kind zero":               frame(kind, 0),
		"unknown kind":            frame(kind, 99),
		"kind out of range":       frame(kind, 0x80, 0x80, 0x04),
		"unknown field":           frame(kind, 1, 200),
		"field zero":              frame(0, 1),
		"field twice":             frame(kind, 1, kind, 1),
		"fields out of order":     frame(verdict, 1, kind, 1),
		"flag twice":              frame(kind, 1, stream, stream),
		"zero number":             frame(kind, 1, verdict, 0),
		"unknown verdict":         frame(kind, 1, verdict, 3),
		"unknown severity":        frame(kind, 1, 6, 6),
		"empty text":              frame(kind, 1, source, 0),
		"text above its limit":    frame(long...),
		"text beyond the end":     frame(kind, 1, source, 5, 'x'),
		"over-long varint":        frame(kind, 0x81, 0x00),
		"unfinished varint":       frame(kind, 0x81),
		"eleven-byte varint":      frame(kind, 1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"time without parts":      frame(kind, 1, seconds),
		"time after 9999":         frame(kind, 1, seconds, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1),
		"a billion nanoseconds":   frame(kind, 1, seconds, 1, 0x80, 0x94, 0xeb, 0xdc, 0x03),
		"length beyond the bytes": {5, kind, 1},
		"length above the bound":  binary.AppendUvarint(nil, MaxWire+1),
		"over-long length":        {0x82, 0x00, kind, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if e, _, err := DecodeWire(b); !errors.Is(err, ErrWire) {
				t.Errorf("%+v %v", e, err)
			}
		})
	}
	if _, _, err := DecodeWire(frame(kind, 1)); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestTableCoversTheEvent(t *testing.T) {
	e := everyField("x", 3)
	found := 0
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			found++
		}
	}
	if found != len(fields) {
		t.Errorf("%d fields of Event, %d in the table", found, len(fields))
	}
	sum := uint64(0)
	for i, f := range fields {
		if int(f.id) != i+1 {
			t.Errorf("id %d at place %d", f.id, i)
		}
		if f.typ == typeText {
			sum += f.limit + 4
		} else {
			sum += 21
		}
	}
	if sum > MaxWire {
		t.Errorf("a full event has %d bytes, MaxWire is %d", sum, MaxWire)
	}
}

func FuzzDecodeWire(f *testing.F) {
	e := everyField("text", 5)
	f.Add(e.AppendWire(nil))
	f.Add([]byte{2, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := DecodeWire(b)
		if err != nil {
			return
		}
		used := b[:len(b)-len(rest)]
		if again := e.AppendWire(nil); !bytes.Equal(again, used) {
			t.Fatalf("two encodings of one event:\n%x\n%x", used, again)
		}
		if _, err := e.AppendOCSF(nil, Node{}); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkWire(b *testing.B) {
	e := everyField("some text", 12345)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendWire(buf[:0])
		if _, _, err := DecodeWire(buf); err != nil {
			b.Fatal(err)
		}
	}
}
