// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

func accessSnapshot(t *testing.T, rev uint64, bindings string) *policy.Snapshot {
	t.Helper()
	docs, problems := policy.Parse("f.yaml", []byte("apiVersion: ringfence.dev/v1\nkind: Access\nmetadata: {name: a}\nscope: org:acme\nbindings:\n"+bindings))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	snap, problems := policy.Compile(rev, docs)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return snap
}

func TestNamesThatNobodyHasMatchNobody(t *testing.T) {
	snap := accessSnapshot(t, 1, `  - {role: viewer, users: [alice, "uid:7", nosuch], groups: [eng, alice, "gid:8", slow]}`+"\n")
	known := map[string]uint32{"uid alice": 1000, "gid eng": 50, "uid eng": 9999}
	now := time.Unix(0, 0)
	asked := map[string]int{}
	p := newPeople(func() *policy.Snapshot { return snap })
	p.now = func() time.Time { return now }
	p.lookup = func(kind, name string) (uint32, error) {
		asked[kind+" "+name]++
		if id, ok := known[kind+" "+name]; ok {
			return id, nil
		}
		return 0, errors.New("this machine does not know it")
	}
	a := p.access()
	if len(a.Bindings) != 1 || !slices.Equal(a.Bindings[0].UIDs, []uint32{1000, 7}) || !slices.Equal(a.Bindings[0].GIDs, []uint32{50, 8}) {
		t.Errorf("%+v", a.Bindings)
	}
	var said []string
	for _, pr := range p.problems() {
		said = append(said, pr.Error())
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{`f.yaml:6:44: the user "nosuch" matches nobody: this machine does not know it`, `the group "alice" matches nobody`, `the group "slow"`} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not said:\n%s", want, all)
		}
	}
	if len(said) != 3 {
		t.Errorf("%d problems:\n%s", len(said), all)
	}
	p.access()
	if asked["uid alice"] != 1 {
		t.Errorf("asked %d times", asked["uid alice"])
	}
	// The user is removed, and another gets a name: after a while, without any
	// change of policy.
	delete(known, "uid alice")
	known["uid nosuch"] = 1001
	if a = p.access(); !slices.Contains(a.Bindings[0].UIDs, 1000) {
		t.Error("control: what was looked up is believed for a while")
	}
	now = now.Add(lookAgain)
	if a = p.access(); !slices.Equal(a.Bindings[0].UIDs, []uint32{7, 1001}) {
		t.Errorf("%+v", a.Bindings)
	}
	// A change of policy counts at once, and is told; a name that was looked up a
	// moment ago is not looked up again for it.
	asked = map[string]int{}
	snap = accessSnapshot(t, 2, `  - {role: viewer, users: [alice, fresh], groups: [eng]}`+"\n")
	if p.access(); asked["uid alice"] != 0 || asked["gid eng"] != 0 || asked["uid fresh"] != 1 {
		t.Errorf("asked again: %v", asked)
	}
	changed := p.access().Changed
	snap = accessSnapshot(t, 3, `  - {role: viewer, users: ["uid:9"]}`+"\n")
	p.turn()
	select {
	case <-changed:
	default:
		t.Error("who waits for a change is not told")
	}
	if a = p.access(); !slices.Equal(a.Bindings[0].UIDs, []uint32{9}) {
		t.Errorf("%+v", a.Bindings)
	}
	select {
	case <-a.Changed:
		t.Error("a change that did not happen")
	default:
	}
}

func TestLookupOfThisMachine(t *testing.T) {
	if id, err := lookupID("uid", "root"); err != nil || id != 0 {
		t.Errorf("root: %d %v", id, err)
	}
	if id, err := lookupID("gid", "root"); err != nil || id != 0 {
		t.Errorf("group root: %d %v", id, err)
	}
	for _, kind := range []string{"uid", "gid"} {
		if _, err := lookupID(kind, "no-such-name-here"); err == nil || !strings.Contains(err.Error(), "does not know") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestOperatorEvents(t *testing.T) {
	c := &api.Caller{UID: 1000, PID: 77, Exe: "/usr/bin/ringfence", Comm: "ringfence", Cgroup: "/user.slice/session-3.scope"}
	spell := func(uid uint32) string { return fmt.Sprintf("uid=%d(ann)", uid) }
	for _, tt := range []struct {
		name    string
		err     error
		verdict event.Verdict
		failed  bool
		code    string
	}{
		{"done", nil, event.Allowed, false, ""},
		{"refused", api.Errorf(api.CodeDenied, "this needs root"), event.Denied, false, "denied"},
		{"from a sandbox", api.Errorf(api.CodeInSandbox, "no"), event.Denied, false, "in-sandbox"},
		{"admitted, and failed", api.Errorf(api.CodeConflict, "it has ended"), event.Allowed, true, "conflict"},
		{"admitted, and broke", errors.New("disk"), event.Allowed, true, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := operatorEvent(api.Action{Caller: c, Method: "POST", Path: "/v1/x", What: "stop sandbox 1", Sandbox: "00000001", Scope: "org:a/team:b/agent:c", Err: tt.err}, spell)
			e.Time = time.Now().UTC()
			line, err := e.AppendOCSF(nil, event.Node{})
			if err != nil {
				t.Fatal(err)
			}
			back, err := event.ParseOCSF(line)
			if err != nil {
				t.Fatal(err)
			}
			if back.Verdict != tt.verdict || back.Failed != tt.failed || back.ReasonCode != tt.code {
				t.Errorf("%+v", back)
			}
			if back.Actor != "uid=1000(ann)" || back.UID != 1000 || back.PID != 77 || back.Exe != c.Exe || back.Comm != c.Comm || back.Sandbox != "00000001" ||
				back.Detail != "stop sandbox 1; from the cgroup /user.slice/session-3.scope" {
				t.Errorf("who, what and from where: %s", line)
			}
		})
	}
}
