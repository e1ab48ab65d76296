// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func sample() *Spec {
	return &Spec{
		SandboxID: "id", Hostname: "h", Argv: []string{"a", "", "c"}, Env: []string{"K=V"}, Dir: "/d",
		Identity: Identity{UID: 1, GID: 1 << 31, Groups: []uint32{3, 4}, UserNS: true},
		Mounts: []Mount{{
			Kind: MountFD, Target: "/x", FD: 7, TopFD: 11, IsFile: true, ReadOnly: true, Exec: true, Dev: true,
			Size: 1 << 40, Mode: 0o1777, Data: "d", UID: 9, GID: 10,
		}, {Kind: MountProc, Target: "/proc"}},
		Landlock: Landlock{MinABI: 6, Rules: []LandlockRule{{Path: "/", Access: "list", Optional: true}}},
		Rlimits:  []Rlimit{{Resource: 4, Value: 1<<64 - 1}},
		RootFD:   8, SeccompFD: -1, StdioFDs: [3]int{0, -1, 2}, StatusFD: 5, ListenFD: 6, TTY: true, Rows: 65535, Cols: 1,
	}
}

func TestSpecRoundTrip(t *testing.T) {
	// A field that the codec forgets would come back zero.
	v := reflect.ValueOf(sample()).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the sample leaves %s zero", v.Type().Field(i).Name)
		}
	}
	b, err := sample().AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSpec(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v", got)
	}
	for n := range b {
		if _, err := DecodeSpec(b[:n]); !errors.Is(err, ErrSpec) {
			t.Fatalf("truncated to %d bytes: %v", n, err)
		}
	}
	if _, err := DecodeSpec(append(b, 0)); !errors.Is(err, ErrSpec) {
		t.Errorf("trailing byte: %v", err)
	}
}

func FuzzDecodeSpec(f *testing.F) {
	b, err := sample().AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{specVersion, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSpec(b)
		if err != nil {
			return
		}
		out, err := s.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeSpec(out)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("not stable: %v\n%+v\n%+v", err, s, again)
		}
	})
}

func FuzzDecodeFrame(f *testing.F) {
	f.Add(Frame{Type: FrameExited, Status: -1, Text: "x"}.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := DecodeFrame(b)
		if err != nil {
			return
		}
		again, err := DecodeFrame(fr.AppendBinary(nil))
		if err != nil || again != fr {
			t.Fatalf("%v: %+v, %+v", err, fr, again)
		}
	})
}

func TestConn(t *testing.T) {
	a, peer, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer peer.Close()
	fd, err := dupFile(peer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := rawFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.Dup(raw)
	if err != nil {
		t.Fatal(err)
	}
	fd.Close()
	b, err := NewConn(n)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	big := []byte(strings.Repeat("0123456789abcdef", 1<<16)) // 1 MiB
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	go func() {
		_ = a.Send(Frame{Type: FrameSpec, Text: "t"}, big, null, null)
		_ = a.Send(Frame{Type: FrameFailed, Status: 125}, []byte("why"))
	}()
	m, err := b.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.Type != FrameSpec || string(m.Payload) != string(big) || len(m.FDs) != 2 || m.Text != "t" {
		t.Errorf("got %+v with %d bytes", m.Frame, len(m.Payload))
	}
	m.Close()
	if m, err = b.Recv(); err != nil || m.Reason() != "why" {
		t.Errorf("got %v, %v", m, err)
	}
	hostile := map[string][]byte{
		"short":              []byte("x"),
		"type zero":          make([]byte, FrameSize),
		"text too long":      append(Frame{Type: FrameStarted}.AppendBinary(nil), make([]byte, 4096)...),
		"negative length":    Frame{Type: FrameSpec, Status: -5}.AppendBinary(nil),
		"huge length":        Frame{Type: FrameSpec, Status: MaxPayload + 1}.AppendBinary(nil),
		"longer than said":   append(Frame{Type: FrameSpec, Status: 1}.AppendBinary(nil), 1, 2),
		"stray continuation": nil,
	}
	for name, packet := range hostile {
		t.Run(name, func(t *testing.T) {
			if packet == nil {
				packet = Frame{Type: FrameSpec, Status: 9}.AppendBinary(nil)
				if err := a.sendmsg(packet, nil); err != nil {
					t.Fatal(err)
				}
				packet = Frame{Type: frameChunk}.AppendBinary(nil)
			}
			if err := a.sendmsg(packet, nil); err != nil {
				t.Fatal(err)
			}
			if m, err := b.Recv(); !errors.Is(err, ErrFrame) {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}
