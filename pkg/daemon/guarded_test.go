// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
)

func TestGuardedEvents(t *testing.T) {
	for _, c := range []struct {
		g                      kernel.Guarded
		activity, path, object string
	}{
		{kernel.Guarded{Hook: kernel.HookLSMEntry, Reason: kernel.ReasonEntry, Way: kernel.WaySymlink, Parent: "hooks", Name: "update"}, "create", "hooks/update", ""},
		{kernel.Guarded{Hook: kernel.HookLSMEntry, Reason: kernel.ReasonEntry, Way: kernel.WayRename, Parent: "a", Name: ".mcp.json"}, "rename", "a/.mcp.json", ""},
		{kernel.Guarded{Hook: kernel.HookLSMExec, Reason: kernel.ReasonPrivilege, Name: "sudo"}, "execute", "sudo", ""},
		{kernel.Guarded{Hook: kernel.HookLSMUserns, Reason: kernel.ReasonNamespace}, "unshare", "", "user namespace"},
		{kernel.Guarded{Hook: kernel.HookLSMURing, Reason: kernel.ReasonURing}, "io_uring_setup", "", "io_uring"},
	} {
		c.g.Errno = unix.EACCES
		e := &event.Event{}
		describeGuarded(e, &c.g)
		if e.Verdict != event.Denied || e.Layer != "bpf-lsm" || e.Reason == "" || e.Status != uint32(unix.EACCES) {
			t.Errorf("%v: %+v", c.g.Hook, e)
		}
		if e.Activity != c.activity || e.Path != c.path || e.Object != c.object {
			t.Errorf("%v: %q %q %q", c.g.Hook, e.Activity, e.Path, e.Object)
		}
		if (c.g.Hook == kernel.HookLSMEntry) != (e.Remedy != "") {
			t.Errorf("%v: remedy %q", c.g.Hook, e.Remedy)
		}
	}
}

func TestTheThirdLockDegradesNothing(t *testing.T) {
	up := guardPart(&sandbox.Record{Guard: []string{"socket_connect", "inode_create"}})
	if up.State != api.Enforced || !strings.Contains(up.Detail, "inode_create") {
		t.Errorf("%+v", up)
	}
	away := guardPart(&sandbox.Record{Unguarded: "no such programs"})
	if away.State != api.Absent || away.Detail != "no such programs" {
		t.Errorf("%+v", away)
	}
	for _, r := range []sandbox.Record{{Foreign: &sandbox.Foreign{}}, {}} { // adopted; started by a version without it
		if p := guardPart(&r); p.State != api.Absent || p.Detail == "" || p.Remedy != "" {
			t.Errorf("%+v", p)
		}
	}
	if got := worst([]api.Part{up, away}); got != api.Enforced {
		t.Errorf("a sandbox without it is %s", got)
	}
	if got := worst([]api.Part{away, {State: "x"}}); got != api.Degraded {
		t.Errorf("an unknown state is %s", got)
	}
}
