// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// askOne asks for one call where nothing else is.
func askOne(c *Call, l Limits, now time.Time) (Answers, []Request, error) {
	return AskAll(nil, []*Call{c}, func() string { return "r1" }, l, now)
}

func TestTheZeroValueDenies(t *testing.T) {
	var r Request
	if r.State != Denied || r.At(start).State != Denied {
		t.Errorf("a request without a state is %s", r.State)
	}
	if _, err := r.Vote(people[0], true, Terms{}, "", start); !errors.Is(err, ErrDecided) {
		t.Errorf("it can be approved: %v", err)
	}
	if r.covers(&Call{}) {
		t.Error("it covers a call")
	}
	if (&Demand{}).Valid() == nil || (&Demand{}).lets(&people[5], 1000) {
		t.Error("a demand of nothing is met")
	}
	if d := (&Demand{Rule: "a/b", Quorum: 1}); d.lets(&Person{}, 1000) || !d.lets(&people[0], 1000) {
		t.Error("who is not known is root, or root is not")
	}
	c := someCall(0)
	if a, _, _ := askOne(&c, Limits{}, start); a.Outcome != Refused {
		t.Errorf("without limits asking comes to %d", a.Outcome)
	}
	if a, _, _ := askOne(&c, DefaultLimits, start); a.Outcome != Waiting {
		t.Errorf("control: asking comes to %d", a.Outcome)
	}
}

func TestCallsThatCannotBeAskedFor(t *testing.T) {
	for name, spoil := range map[string]func(*Call){
		"no demand":               func(c *Call) { c.Demands = nil },
		"no quorum":               func(c *Call) { c.Demands = []Demand{{Rule: "a/b", ExpiresAfter: 1}} },
		"a demand without a rule": func(c *Call) { c.Demands = []Demand{{Quorum: 1, ExpiresAfter: 1}} },
		"a negative time":         func(c *Call) { c.Demands = []Demand{{Rule: "a/b", Quorum: 1, ExpiresAfter: -1}} },
		"no time":                 func(c *Call) { c.Demands = []Demand{{Rule: "a/b", Quorum: 1}} },
		"an approver that is none": func(c *Call) {
			c.Demands = []Demand{{Rule: "a/b", Quorum: 1, ExpiresAfter: 1, Approvers: []string{"sre"}}}
		},
		"no sandbox":                func(c *Call) { c.Sandbox = "" },
		"another sandbox's scope":   func(c *Call) { c.Scope = "org:a/team:b/agent:c/sandbox:ffffffff" },
		"no kind":                   func(c *Call) { c.Kind = "" },
		"no target":                 func(c *Call) { c.Target = "" },
		"a target without end":      func(c *Call) { c.Target = strings.Repeat("x", MaxTarget+1) },
		"no fingerprint":            func(c *Call) { c.Fingerprint = "" },
		"a fingerprint that is not": func(c *Call) { c.Fingerprint = strings.Repeat("G", 64) },
		"arguments without a hash":  func(c *Call) { c.Arguments = "amount=1" },
	} {
		t.Run(name, func(t *testing.T) {
			c := someCall(0)
			if err := c.Valid(); err != nil {
				t.Fatal("control:", err)
			}
			spoil(&c)
			a, changed, err := askOne(&c, DefaultLimits, start)
			if !errors.Is(err, ErrCall) || a.Outcome != Refused || len(changed) != 0 {
				t.Errorf("asking comes to %+v, %v", a, err)
			}
		})
	}
}

func TestBindingIsOfEverythingThatRuns(t *testing.T) {
	c := someCall(0)
	seen := map[string]string{c.Binding(): "the call itself"}
	for name, change := range map[string]func(*Call){
		"scope":      func(c *Call) { c.Scope += "x" },
		"kind":       func(c *Call) { c.Kind = Model },
		"target":     func(c *Call) { c.Target += "x" },
		"definition": func(c *Call) { c.Definition = c.Arguments },
		"arguments":  func(c *Call) { c.Arguments = "" },
		"moved":      func(c *Call) { c.Definition, c.Arguments = c.Arguments, "" },
		"joined":     func(c *Call) { c.Target, c.Definition = c.Target[:3], c.Target[3:] },
	} {
		d := c
		change(&d)
		if other := seen[d.Binding()]; other != "" {
			t.Errorf("%s: the same binding as %s", name, other)
		}
		seen[d.Binding()] = name
	}
	d := c
	d.Shown, d.Launcher, d.Fingerprint, d.Demands = "x", 7, "x", nil
	if d.Binding() != c.Binding() {
		t.Error("the binding is of what does not run")
	}
}

func TestApproversOfADemand(t *testing.T) {
	p := Person{UID: 1001, Name: "alice", Groups: []string{"sre"}, GIDs: []uint32{77}}
	for text, is := range map[string]bool{"user:alice": true, "uid:1001": true, "group:sre": true, "gid:77": true, "user:sre": false, "group:alice": false, "uid:1002": false, "gid:78": false, "uid:77": false, "gid:1001": false, "alice": false} {
		if named([]string{"user:eve", text}, &p) != is {
			t.Errorf("%s means alice: %v", text, !is)
		}
	}
	if named([]string{"user:x", "group:x"}, &Person{UID: 1005}) {
		t.Error("a person without a name is somebody")
	}
}

func TestRequestsAreKeptAsTheyAre(t *testing.T) {
	c := someCall(16)
	c.Shown = "pay \x1b[31m \u202e to: b"
	_, changed, err := askOne(&c, DefaultLimits, start)
	if err != nil {
		t.Fatal(err)
	}
	r := changed[0]
	for i, p := range []Person{people[2], people[3]} {
		if r, err = r.Vote(p, true, Terms{Lasts: LastsFor, For: time.Minute * time.Duration(i+3)}, "fine", start.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if r.State != Approved || r.Grant.For != 3*time.Minute {
		t.Fatalf("%+v", r)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Request
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(r, back) {
		t.Errorf("%v\n%+v\n%+v", err, r, back)
	}
	if json.Unmarshal([]byte(`{"state":"fine"}`), &back) == nil {
		t.Error("a state that is none was read")
	}
}

// TestWhoHasToAgree: the words for it are made here and nowhere else.
func TestWhoHasToAgree(t *testing.T) {
	for want, d := range map[string]Demand{
		"root, an approver or who launched it":     {},
		"root or an approver, not who launched it": {Separate: true},
		"group:sre or uid:7":                       {Approvers: []string{"group:sre", "uid:7"}},
		"group:sre or uid:7, not who launched it":  {Approvers: []string{"group:sre", "uid:7"}, Separate: true},
	} {
		if got := d.Who(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	r := Request{State: Pending, Demands: []Demand{{Rule: "a/b", Quorum: 2, Approvers: []string{"group:sre"}}, {Rule: "a/c", Quorum: 1}}}
	if got, want := r.Needs(), "2 of group:sre (rule a/b), and root, an approver or who launched it (rule a/c)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.Votes = []Vote{{Approve: true, For: []int{0, 1}}}
	if got, want := r.Needs(), "group:sre (rule a/b)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestWhoAsksBindsNothing: what people know a sandbox by is kept with the
// request, within bounds, and nothing that is decided depends on it.
func TestWhoAsksBindsNothing(t *testing.T) {
	c := someCall(16)
	c.Demands = slices.Clone(c.Demands) // they are everybody's
	c.Asker, c.Demands[0].Reason, c.Demands[0].At = Asker{Name: "web", Program: strings.Repeat("ü", MaxTarget), Workspace: "/w", Profile: "coding"}, "say why", "Policy/eng:7"
	_, changed, err := askOne(&c, DefaultLimits, start)
	if err != nil {
		t.Fatal(err)
	}
	r := changed[0]
	if a := r.Asker; a.Name != "web" || a.Workspace != "/w" || a.Profile != "coding" || a.Program != strings.Repeat("ü", MaxTarget/2) {
		t.Errorf("%+v", a)
	}
	if d := r.Demands[0]; d.Reason != "say why" || d.At != "Policy/eng:7" {
		t.Errorf("%+v", d)
	}
	other := someCall(16)
	if a, _, err := AskAll(changed, []*Call{&other}, ids(2), DefaultLimits, start); err != nil || a.Outcome != Waiting || a.IDs[0] != "r1" || other.Binding() != c.Binding() {
		t.Errorf("%+v %v", a, err)
	}
	c.Demands[0].Reason = strings.Repeat("x", 2*MaxShown)
	if _, _, err := askOne(&c, DefaultLimits, start); !errors.Is(err, ErrCall) {
		t.Errorf("a reason without end: %v", err)
	}
}

// TestAnEarlierValueStays: a vote on an old copy must not show in the new one.
func TestAnEarlierValueStays(t *testing.T) {
	c := someCall(48)
	_, changed, _ := askOne(&c, DefaultLimits, start)
	one, err := changed[0].Vote(people[0], true, Terms{}, "", start)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := one.Vote(people[1], true, Terms{}, "", start)
	b, _ := one.Vote(people[4], true, Terms{}, "", start)
	if len(one.Votes) != 1 || a.Votes[1].UID != 1000 || b.Votes[1].UID != 1003 || len(changed[0].Votes) != 0 {
		t.Error("values share their votes")
	}
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{"abc": "abc", "abcdef": "abcd", "abcé": "abc", "€€": "€", "\x80\x80\x80\x80\x80": ""} {
		if got := clip(in, 4); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}
