// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
)

func refused() []confine.ProbeResult {
	return []confine.ProbeResult{{Probe: confine.ProbeConnect, Errno: unix.EACCES}, {Probe: confine.ProbeOpen, Errno: unix.EACCES}, {Probe: confine.ProbeCall, Errno: unix.EPERM}}
}

func TestProbeResultsAreAllOrNothing(t *testing.T) {
	all := refused()
	got, err := confine.DecodeProbes(confine.AppendProbes(nil, all))
	if err != nil || len(got) != len(confine.Probes()) {
		t.Fatal(got, err)
	}
	for i, r := range got {
		if r != all[i] || !r.Denied() {
			t.Errorf("%+v", r)
		}
	}
	for name, b := range map[string][]byte{
		"none":        nil,
		"one left":    confine.AppendProbes(nil, all[:2]),
		"one twice":   confine.AppendProbes(nil, []confine.ProbeResult{all[0], all[0], all[2]}),
		"other order": confine.AppendProbes(nil, []confine.ProbeResult{all[1], all[0], all[2]}),
		"more":        confine.AppendProbes(nil, append(refused(), all[0])),
		"unknown":     confine.AppendProbes(nil, []confine.ProbeResult{all[0], all[1], {Probe: 9, Errno: unix.EPERM}}),
	} {
		if _, err := confine.DecodeProbes(b); !errors.Is(err, confine.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyTheLayersOwnAnswerIsARefusal(t *testing.T) {
	for _, r := range []confine.ProbeResult{
		{}, {Probe: 9, Errno: unix.EPERM}, {Probe: confine.ProbeConnect}, {Probe: confine.ProbeConnect, Errno: unix.ECONNREFUSED},
		{Probe: confine.ProbeOpen}, {Probe: confine.ProbeOpen, Errno: unix.ENOENT}, {Probe: confine.ProbeCall}, {Probe: confine.ProbeCall, Errno: unix.EBADF},
	} {
		if r.Denied() {
			t.Errorf("%+v counts as refused", r)
		}
	}
	for _, p := range confine.Probes() {
		if p.Layer() == "" || p.Act() == "" || p.Remedy() == "" {
			t.Errorf("probe %d has no words", p)
		}
	}
}

func FuzzDecodeProbes(f *testing.F) {
	f.Add(confine.AppendProbes(nil, refused()))
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := confine.DecodeProbes(b)
		if err != nil {
			return
		}
		if again := confine.AppendProbes(nil, got); string(again) != string(b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// What init reports is what the walls do: a launch without one of them says so,
// and only so. A sandbox of this test has no network programs, and its filter
// lets everything through.
func TestProbesNoticeAMissingWall(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	for _, c := range []struct {
		name string
		set  func(*confine.PlanInput)
		want map[confine.Probe]unix.Errno
	}{
		{"no filter, no programs", func(*confine.PlanInput) {}, map[confine.Probe]unix.Errno{confine.ProbeOpen: unix.EACCES, confine.ProbeCall: unix.EBADF}},
		{"a filter", func(in *confine.PlanInput) { in.SeccompFilter = refuse(unix.SYS_SETNS, unix.EPERM) }, map[confine.Probe]unix.Errno{confine.ProbeOpen: unix.EACCES, confine.ProbeCall: unix.EPERM}},
	} {
		for _, mode := range modes {
			t.Run(c.name+"/"+mode.name, func(t *testing.T) {
				in := input(t, w)
				mode.set(&in)
				c.set(&in)
				b := prepare(t, in, probePath)
				results, err := confine.DecodeProbes(b.ready.Payload)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					if r.Probe == confine.ProbeConnect { // the namespace has no route at all here
						if r.Denied() {
							t.Errorf("the connect was answered with %v without any program", r.Errno)
						}
						continue
					}
					if r.Errno != c.want[r.Probe] {
						t.Errorf("%s: %v, want %v", r.Probe.Act(), r.Errno, c.want[r.Probe])
					}
				}
			})
		}
	}
}

// Without Landlock the same file opens: a rule that grants it stands for that.
func TestTheProbeFileIsRefusedByLandlockAlone(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	b := prepareOther(t, input(t, w), func(s *confine.Spec) {
		s.Landlock.Rules = append(s.Landlock.Rules, confine.LandlockRule{Path: confine.GuardDir, Access: "r"})
	}, probePath)
	results, err := confine.DecodeProbes(b.ready.Payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Probe == confine.ProbeOpen && r.Errno != 0 {
			t.Errorf("%v although Landlock grants it: something else refuses, and the probe proves nothing", r.Errno)
		}
	}
}
