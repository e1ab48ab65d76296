// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDestroyFlows(t *testing.T) {
	r := newRig(t, FlagLoopback|FlagDNS)
	fd4, _ := r.ns.listen(t, "tcp4", "198.18.0.1:0", "hold")
	fd6, _ := r.ns.listen(t, "tcp6", "[::1]:0", "hold")
	if err := r.box.Steer(-1, SteerListeners{TCP4: fd4, TCP6: fd6}); err != nil {
		t.Fatal(err)
	}
	if err := r.fence.PutCIDRs(testPolicy, []CIDREntry{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Proto: ProtoTCP, Allow: true},
		{Prefix: netip.MustParsePrefix("::/0"), Proto: ProtoTCP, Allow: true},
	}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ op, addr string }{
		{"tcp-held", "203.0.113.5:443"},
		{"tcp-held", "[2001:db8::5]:443"},
		{"tcp-held", "[::ffff:203.0.113.5]:443"},
		{"udp-held", "203.0.113.5:53"},
		{"udp-held", "[2001:db8::5]:53"},
	} {
		t.Run(tt.op+" "+tt.addr, func(t *testing.T) {
			want := netip.MustParseAddrPort(tt.addr)
			match := func(f Flow) bool {
				return f.Dst.Port() == want.Port() && f.Dst.Addr().Unmap() == want.Addr().Unmap()
			}
			r.in.start(attempt{Op: tt.op, Addr: tt.addr})
			n := 0
			for deadline := time.Now().Add(3 * time.Second); n == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				var err error
				if n, err = destroyFlows(int(r.ns.file.Fd()), new(atomic.Bool), match); err != nil {
					t.Fatal(err)
				}
			}
			if n != 1 {
				t.Errorf("destroyed %d flows", n)
			}
			if got := r.in.wait(); got.Errno != unix.ECONNABORTED {
				t.Errorf("%v at %q", got.Errno, got.Step)
			}
		})
	}
	if n, err := destroyFlows(int(r.ns.file.Fd()), new(atomic.Bool), func(Flow) bool { return false }); n != 0 || err != nil {
		t.Errorf("nothing matched: %d, %v", n, err)
	}
}

// What the kernel says where it cannot end sockets has one name, wherever it
// comes up; everything else is what it is.
func TestErrNoDestroy(t *testing.T) {
	if err := canDestroy(errors.Join(fmt.Errorf("a flow: %w", unix.EOPNOTSUPP), unix.EPERM)); !errors.Is(err, ErrNoDestroy) {
		t.Error(err)
	}
	for _, err := range []error{nil, unix.EPERM} {
		if got := canDestroy(err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
