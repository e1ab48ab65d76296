// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a kernel new enough a feature that is reported missing is our fault.
func TestProbe(t *testing.T) {
	needRoot(t)
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	noLSM := tryLSM() // which depends on more than the kernel's age
	for _, f := range Probe() {
		if seen[f.Name] {
			t.Errorf("%s twice", f.Name)
		}
		seen[f.Name] = true
		if f.Kernel == "" || f.Detail == "" || (f.Need != NeedRequired && f.Need != NeedOptional) {
			t.Errorf("incomplete: %+v", f)
		}
		if f.Have == (f.Remedy != "") {
			t.Errorf("remedy goes with missing features: %+v", f)
		}
		if lsm := strings.Contains(f.Name, "lsm"); lsm && noLSM != nil {
			if f.Have {
				t.Errorf("%s although %v", f.Name, noLSM)
			}
			continue
		}
		if !f.Have && atLeast(unix.ByteSliceToString(uts.Release[:]), f.Kernel) {
			t.Errorf("kernel %s lacks %s: %s", uts.Release, f.Name, f.Detail)
		}
	}
	for _, name := range []string{"cgroup2", "bpffs", "btf", "maps", "sock_create", "connect4", "connect6", "sendmsg4", "sendmsg6", "egress", "connect_unix", "sendmsg_unix", "exec", "exit", "sk_lookup", "set_retval", "sock_destroy", "bpf_lsm", "lsm_userns_create", "lsm_uring_allowed"} {
		if !seen[name] {
			t.Errorf("%s was not probed", name)
		}
	}
	root, err := CgroupRoot()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "ringfence-probe-"+itoa(uint32(os.Getpid())))); !os.IsNotExist(err) {
		t.Errorf("the probe's cgroup is still there: %v", err)
	}
}

// A cgroup attached as the gateway: what it dials is judged, what it accepts
// may answer, and nothing else.
func TestGateway(t *testing.T) {
	r := newRig(t, FlagGateway)
	if err := r.fence.PutCIDRs(testPolicy, []CIDREntry{allowTCP("203.0.113.0/24"), allowTCP("198.18.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	for addr, reply := range map[string]string{
		"203.0.113.5:443": "gateway 203.0.113.5:443", "198.18.0.9:443": "gateway 198.18.0.9:443",
		"127.0.0.1:22": "", "169.254.169.254:80": "", "10.0.0.1:443": "", "8.8.8.8:53": "",
	} {
		got := r.in.try(attempt{Op: "tcp", Addr: addr})
		if got.Reply != reply || (reply == "") != (got.Errno == errnoFor(unix.EACCES)) {
			t.Errorf("%s: %+v", addr, got)
		}
	}
	if got := r.in.try(attempt{Op: "udp-sendto", Addr: "203.0.113.5:443"}); got.Errno != errnoFor(unix.EACCES) {
		t.Errorf("UDP: %+v", got)
	}
	r.in.start(attempt{Op: "serve", Addr: "127.0.0.1:9090"})
	got := eventually(func() result { return r.out.try(attempt{Op: "tcp", Addr: "127.0.0.1:9090"}) })
	if got.Reply != "served" {
		t.Errorf("client of the gateway: %+v", got)
	}
	if got := r.in.wait(); got.Errno != 0 {
		t.Errorf("gateway: %+v", got)
	}
}
