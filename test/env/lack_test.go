// SPDX-License-Identifier: Apache-2.0

package env

import "testing"

// stopped is a test that notes how it was ended.
type stopped struct {
	testing.TB
	failed, skipped bool
}

func (s *stopped) Helper()               {}
func (s *stopped) Fatalf(string, ...any) { s.failed = true; panic(s) }
func (s *stopped) Skipf(string, ...any)  { s.skipped = true; panic(s) }

func TestWhatIsThereIsNoLackInCI(t *testing.T) {
	for _, tt := range []struct {
		ci            string
		there, failed bool
	}{{"", true, false}, {"", false, false}, {"1", false, false}, {"1", true, true}} {
		t.Setenv("RINGFENCE_CI", tt.ci)
		s := &stopped{TB: t}
		func() {
			defer func() { _ = recover() }()
			Lack(s, tt.there, "it")
		}()
		if s.failed != tt.failed || s.skipped == tt.failed {
			t.Errorf("CI %q, there %v: failed %v, skipped %v", tt.ci, tt.there, s.failed, s.skipped)
		}
	}
}

func TestWhatTheKernelSaysOfItself(t *testing.T) {
	if !Linux(3, 0) || Linux(1000, 0) {
		t.Error("the kernel's version is not understood")
	}
	if !Protocol("TCP") || Protocol("no such protocol") {
		t.Error("the kernel's protocols are not understood")
	}
}
