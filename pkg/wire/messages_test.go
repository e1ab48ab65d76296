// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// coded is any message of the protocol.
type coded interface {
	Decode(b []byte) error
	encode() []byte
}

func (m *ResolveRequest) encode() []byte { return must(m.Encode()) }
func (m *ResolveReply) encode() []byte   { return must(m.Encode()) }
func (m *LeafRequest) encode() []byte    { return must(m.Encode()) }
func (m *LeafReply) encode() []byte      { return must(m.Encode()) }
func (m *Names) encode() []byte          { return must(m.Encode()) }
func (m *SandboxAdd) encode() []byte     { return must(m.Encode()) }
func (m *ConfigReply) encode() []byte    { return must(m.Encode()) }
func (m *Node) encode() []byte           { return must(m.Encode()) }
func (m *ID) encode() []byte             { return m.Encode() }
func (m *Config) encode() []byte         { return m.Encode() }
func (m *Connections) encode() []byte    { return m.Encode() }

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// examples hold every message once.
func examples() []coded {
	id, conns := ID(7), Connections(9)
	return []coded{
		&ResolveRequest{Sandbox: 1, Name: "api.example.com"},
		&ResolveReply{Allowed: true, Addr: netip.MustParseAddr("198.18.1.0"), Rule: "a/b", RuleAt: "f:1", Revision: 9},
		&ResolveReply{Exhausted: true, Reason: "no", ReasonCode: "names-exhausted"},
		&LeafRequest{Sandbox: 2, Name: "x", Point: bytes.Repeat([]byte{4}, MaxPoint)},
		&LeafReply{Leaf: []byte{1}, CA: []byte{2, 3}},
		&Names{Sandbox: 3, Entries: []NameEntry{{netip.MustParseAddr("198.18.1.1"), "a"}, {netip.MustParseAddr("::1"), "b"}}},
		&SandboxAdd{ID: 4, Name: "n", Scope: "org:a/team:b/agent:c", Explain: true, Owner: 1000},
		&SandboxAdd{ID: 4, Name: "n", Scope: "org:a/team:b/agent:c", Learns: true},
		&SandboxAdd{ID: 4, Name: "n", Scope: "org:a/team:b/agent:c", Redirected: true, Learns: true},
		&SandboxAdd{ID: 5, Name: "n", Scope: "org:a/team:b/agent:c", Redirected: true},
		&id, &conns,
		&Config{Version: 1}, &Config{Version: 2},
		&ConfigReply{Config: bytes.Repeat([]byte{7}, 32), Binary: "1:2:3:4", Unconfined: []string{"landlock"}, Version: 1},
		&ConfigReply{Config: bytes.Repeat([]byte{7}, 32), Binary: "1:2:3:4", Unconfined: []string{"landlock"}, Version: 2},
		&Node{Resolvers: []string{"192.0.2.53:53"}, OwnAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
	}
}

func fresh(m coded) coded { return reflect.New(reflect.TypeOf(m).Elem()).Interface().(coded) }

func TestMessagesReadBackAsWritten(t *testing.T) {
	for _, m := range examples() {
		b := m.encode()
		got := fresh(m)
		if err := got.Decode(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T: %+v, %v; want %+v", m, got, err, m)
		}
		for n := range b {
			if n == len(b)-addition(m) {
				continue // what version 1 said
			}
			if err := fresh(m).Decode(b[:n]); !errors.As(err, new(*ProtocolError)) {
				t.Errorf("%T cut at %d of %d: %v", m, n, len(b), err)
			}
		}
		if err := fresh(m).Decode(append(b, 0)); !errors.As(err, new(*ProtocolError)) {
			t.Errorf("%T with a byte too many: %v", m, err)
		}
	}
}

// addition is how many bytes a message ends with that version 1 did not say; 0
// if there are none.
func addition(m coded) int {
	switch m := m.(type) {
	case *Config:
		if m.Version > 1 {
			return 2
		}
	case *ConfigReply:
		if m.Version > 1 {
			return 2
		}
	}
	return 0
}

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		mine, theirs, want uint16
		ok                 bool
	}{
		{2, 2, 2, true}, {2, 1, 1, true}, {1, 2, 1, true}, {3, 2, 2, true}, {3, 1, 1, false}, {1, 3, 1, false}, {2, 0, 0, false}, {2, 65535, 2, false},
	} {
		if got, ok := Speak(tt.mine, tt.theirs); ok != tt.ok || got != tt.want {
			t.Errorf("%d and %d: %d, %v", tt.mine, tt.theirs, got, ok)
		}
	}
	for _, said := range []string{"\x00\x00", "\x01\x00", "\x02", "\x02\x00\x00"} {
		if err := new(Config).Decode([]byte(said)); !errors.As(err, new(*ProtocolError)) {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestBoundsOfFields(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	var e Encoder
	e.U32(1)
	e.Str(long, len(long))
	if err := new(ResolveRequest).Decode(e.B); err == nil {
		t.Error("a name over the limit was taken")
	}
	e = Encoder{}
	e.Bytes([]byte{1, 2, 3}, 16)
	if d := NewDecoder(e.B); d.Addr().IsValid() || d.Err() == nil {
		t.Error("an address of three bytes was taken")
	}
	if d := NewDecoder([]byte{2}); d.Bool() || d.Err() == nil {
		t.Error("a boolean of 2 was taken")
	}
	d := NewDecoder(nil)
	if d.U64() != 0 || d.U8() != 0 || d.Str(9) != "" || d.Err() == nil {
		t.Error("reading past the end gave a value")
	}
}

// What does not fit is refused, never cut: a name cut short is another name.
func TestOurOwnMessagesKeepTheBounds(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n+1) }
	for name, encode := range map[string]func() ([]byte, error){
		"name asked":       ResolveRequest{Name: long(MaxName)}.Encode,
		"reason":           ResolveReply{Reason: long(MaxText)}.Encode,
		"leaf's name":      LeafRequest{Name: long(MaxName)}.Encode,
		"leaf":             LeafReply{Leaf: make([]byte, MaxDER+1)}.Encode,
		"scope":            SandboxAdd{Scope: long(MaxScope)}.Encode,
		"too many names":   Names{Entries: make([]NameEntry, MaxEntries+1)}.Encode,
		"a name in a list": Names{Entries: []NameEntry{{Name: long(MaxName)}, {Name: "a"}}}.Encode,
		"labels":           func() ([]byte, error) { return EncodeCounters([]Counter{{Labels: make([]string, MaxLabels+1)}}) },
		"walls":            ConfigReply{Unconfined: make([]string, MaxUnconfined+1)}.Encode,
		"own addresses":    Node{OwnAddrs: make([]netip.Addr, MaxEntries+1)}.Encode,
		"too many ids":     func() ([]byte, error) { return EncodeIDs(make([]uint32, 1<<16)) },
	} {
		if b, err := encode(); b != nil || !errors.As(err, new(*TooLongError)) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	for n, want := range []string{"", "a", "a", "a\u00e4", "a\u00e4b"} {
		if got := Clip("a\u00e4b", n); got != want {
			t.Errorf("Clip to %d: %q, want %q", n, got, want)
		}
	}
}

func TestCountersAndIDs(t *testing.T) {
	in := []Counter{{"a_total", []string{"x", "y"}, 7}, {"b", nil, 0}}
	if out, err := DecodeCounters(must(EncodeCounters(in))); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("%v, %v", out, err)
	}
	ids := []uint32{1, 1 << 31, 0}
	revs := map[uint32]uint64{7: 1 << 40, 1: 0}
	if out, err := DecodeRevisions(must(EncodeRevisions(revs))); err != nil || !reflect.DeepEqual(revs, out) {
		t.Errorf("%v, %v", out, err)
	}
	if _, err := DecodeRevisions(must(EncodeRevisions(revs))[:20]); err == nil {
		t.Error("cut revisions were taken")
	}
	if out, err := DecodeIDs(must(EncodeIDs(ids))); err != nil || !reflect.DeepEqual(ids, out) {
		t.Errorf("%v, %v", out, err)
	}
}

// Whatever comes in, decoding ends in an error or in a value that encodes to
// the same bytes: there is one form of each message.
func FuzzMessages(f *testing.F) {
	for i, m := range examples() {
		f.Add(uint8(i), m.encode())
	}
	f.Add(uint8(5), []byte{0, 0, 0, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		all := examples()
		m := fresh(all[int(which)%len(all)])
		if err := m.Decode(b); err != nil {
			if !errors.As(err, new(*ProtocolError)) {
				t.Errorf("%T: %v is no protocol error", m, err)
			}
			return
		}
		if again := m.encode(); !bytes.Equal(again, b) {
			t.Errorf("%T: %x was read as %+v, which is written %x", m, b, m, again)
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add(must(EncodeCounters([]Counter{{"a", []string{"b"}, 1}})))
	f.Add(must(EncodeIDs([]uint32{1, 2})))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if cs, err := DecodeCounters(b); err == nil && len(cs) > len(b) {
			t.Errorf("%d counters out of %d bytes", len(cs), len(b))
		}
		if ids, err := DecodeIDs(b); err == nil && !bytes.Equal(must(EncodeIDs(ids)), b) {
			t.Errorf("%x was read as %v", b, ids)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(header(1, 0, 0, 1))
	f.Add(append(header(255, 3, 3, ^uint64(0)), "abc"...))
	f.Add(header(1, 0, ^uint32(0), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeHeader(b)
		if err != nil {
			if !errors.As(err, new(*ProtocolError)) {
				t.Errorf("%v is no protocol error", err)
			}
			return
		}
		if m.Type == 0 || len(m.Payload) > MaxPayload || len(m.Payload) != len(b)-headerLen || m.Failed && !m.Reply {
			t.Errorf("%x was taken as %+v", b, m)
		}
	})
}
