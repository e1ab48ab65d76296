// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"
)

// TestElsewhere: what a sandbox may do in a namespace of its own it may not do
// in the keeper's: there loopback is the host's, port 53 a real name server's,
// and nothing is steered. The gateway, which lives there, may.
func TestElsewhere(t *testing.T) {
	needRoot(t)
	home, away := newNamespace(t), newNamespace(t)
	for _, ns := range []*namespace{home, away} {
		ns.listen(t, "tcp4", "0.0.0.0:5432", "server")
	}
	var f *Fence
	pins := t.TempDir()
	if err := home.do(func() (err error) {
		f, err = Open(Options{PinDir: pins, Logger: slog.New(slog.DiscardHandler)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Remove(); err != nil {
			t.Errorf("Remove: %v", err)
		}
	})
	if err := f.PutCIDRs(testPolicy, []CIDREntry{allowTCP("10.0.0.0/8")}); err != nil {
		t.Fatal(err)
	}
	attach := func(id uint32, flags Flags) string {
		cgroup := newCgroup(t)
		box, err := f.AttachSandbox(cgroup, State{Sandbox: id, Policy: testPolicy, Generation: 1, Flags: flags})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := detachSoon(box); err != nil {
				t.Errorf("Detach: %v", err)
			}
		})
		return cgroup
	}
	sandbox, gateway := attach(testSandbox, FlagLoopback|FlagDNS), attach(testSandbox+1, FlagGateway)
	there, here := home.spawn(t, sandbox), away.spawn(t, sandbox)
	outside, gw := home.spawn(t, ""), home.spawn(t, gateway)
	recs := collect(t, f)
	for _, a := range []attempt{
		{Op: "tcp-loop", Addr: "127.0.0.1:8080"}, {Op: "tcp-loop", Addr: "[::1]:8080"}, {Op: "tcp-loop", Addr: "0.0.0.0:8081"},
		{Op: "udp-sendto", Addr: "127.0.0.1:9"}, {Op: "udp-sendto", Addr: "8.8.8.8:53"}, {Op: "udp", Addr: "[2001:4860:4860::8888]:53"},
		{Op: "udp-sendto", Addr: "[::ffff:8.8.8.8]:53"}, {Op: "tcp", Addr: "10.1.2.3:5432"},
	} {
		recs.reset()
		if got := there.try(a); got.Errno != errnoFor(unix.EACCES) {
			t.Errorf("%v in the keeper's namespace: %v at %q", a, got.Errno, got.Step)
		}
		find(t, recs, "the refusal", func(v *Verdict) bool { return v.Reason == ReasonElsewhere && !v.Allowed })
		for who, c := range map[string]*child{"in its own namespace": here, "outside the cgroup": outside} {
			if got := c.try(a); got.Errno != 0 {
				t.Errorf("%v %s: %v at %q", a, who, got.Errno, got.Step)
			}
		}
	}
	if got := gw.try(attempt{Op: "tcp", Addr: "10.1.2.3:5432"}); got.Errno != 0 {
		t.Errorf("the gateway: %v at %q", got.Errno, got.Step)
	}
	for _, c := range []*child{there, here, outside, gw} {
		c.end()
	}
}
