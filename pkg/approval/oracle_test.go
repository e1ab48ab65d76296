// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// The oracle keeps only what happened, and works every state out again from the
// beginning each time it is asked. It was written from the prose: doc comments,
// docs/APPROVALS.md.
type oracle struct{ items []*told }

type told struct {
	id      string
	call    Call
	asked   time.Time
	times   uint64
	votes   []ballot
	used    bool
	outdone time.Time // superseded then
	over    time.Time // its sandbox ended then
}

type ballot struct {
	who   Person
	yes   bool
	terms Terms
	at    time.Time
}

// counts says whether a person's vote counts for a demand.
func counts(d Demand, p Person, launcher uint32) bool {
	ok := p.UID == 0
	if len(d.Approvers) == 0 {
		ok = ok || p.Role || p.UID == launcher
	}
	for _, a := range d.Approvers {
		ok = ok || a == fmt.Sprintf("uid:%d", p.UID) || a == "user:"+p.Name
		for _, g := range p.Groups {
			ok = ok || a == "group:"+g
		}
		for _, g := range p.GIDs {
			ok = ok || a == fmt.Sprintf("gid:%d", g)
		}
	}
	return ok && (!d.Separate || p.UID != launcher)
}

// enough is when all demands were met, false if they never were.
func (o *told) enough() (time.Time, bool) {
	for n := range o.votes {
		met := true
		for _, d := range o.call.Demands {
			people := map[uint32]bool{}
			for _, b := range o.votes[:n+1] {
				if b.yes && counts(d, b.who, o.call.Launcher) {
					people[b.who.UID] = true
				}
			}
			met = met && len(people) >= d.Quorum
		}
		if met {
			return o.votes[n].at, true
		}
	}
	return time.Time{}, false
}

// least is what all approvers gave.
func (o *told) least() (t Terms) {
	t = Terms{Covers: CoversTarget, Lasts: LastsSandbox}
	for _, b := range o.votes {
		t.Covers, t.Lasts = min(t.Covers, b.terms.Covers), min(t.Lasts, b.terms.Lasts)
		if b.terms.Lasts == LastsFor && (t.For == 0 || b.terms.For < t.For) {
			t.For = b.terms.For
		}
	}
	if t.Lasts == LastsOnce {
		t.Covers, t.For = CoversCall, 0
	}
	return t
}

func (o *told) state(now time.Time) State {
	waits := o.asked.Add(24 * 365 * time.Hour)
	holds := time.Duration(0)
	for _, d := range o.call.Demands {
		if end := o.asked.Add(d.ExpiresAfter); end.Before(waits) {
			waits = end
		}
		if d.ValidFor > 0 && (holds == 0 || d.ValidFor < holds) {
			holds = d.ValidFor
		}
	}
	for _, b := range o.votes {
		if !b.yes {
			return Denied
		}
	}
	yes, approved := o.enough()
	if !approved {
		end := waits
		switch {
		case !o.outdone.IsZero() && o.outdone.Before(end):
			return Superseded
		case !o.over.IsZero() && o.over.Before(end):
			return Cancelled
		case !now.Before(end):
			return Expired
		}
		return Pending
	}
	t := o.least()
	end := yes.Add(24 * 365 * 10 * time.Hour)
	switch t.Lasts {
	case LastsOnce:
		if holds == 0 {
			holds = time.Hour
		}
		end = yes.Add(holds)
	case LastsFor:
		end = yes.Add(t.For)
	}
	switch {
	case o.used:
		return Consumed
	case !o.outdone.IsZero():
		return Superseded
	case !o.over.IsZero(), !now.Before(end):
		return Expired
	}
	return Approved
}

func same(a, b *Call) bool {
	return a.Scope == b.Scope && a.Kind == b.Kind && a.Target == b.Target && a.Definition == b.Definition && a.Arguments == b.Arguments
}

func (o *oracle) ask(c Call, id string, l Limits, now time.Time) (Outcome, string) {
	for _, i := range o.items {
		if s := i.state(now); (s == Pending || s == Approved) && same(&i.call, &c) && i.call.Fingerprint != c.Fingerprint {
			i.outdone = now
		}
	}
	var use *told
	waiting, lately := 0, 0
	for _, i := range o.items {
		if i.call.Sandbox != c.Sandbox {
			continue
		}
		s := i.state(now)
		if s == Pending {
			waiting++
		}
		if now.Sub(i.asked) < time.Minute {
			lately++
		}
		if s == Denied && same(&i.call, &c) && i.call.Fingerprint == c.Fingerprint && now.Sub(i.votes[len(i.votes)-1].at) < 5*time.Minute {
			use = nil
			return Refused, i.id
		}
		if s != Approved || i.call.Fingerprint != c.Fingerprint || i.call.Target != c.Target || i.call.Kind != c.Kind || i.call.Definition != c.Definition {
			continue
		}
		t := i.least()
		fits := same(&i.call, &c) || t.Covers == CoversTarget
		if fits && (use == nil || t.Lasts > use.least().Lasts) {
			use = i
		}
	}
	if use != nil {
		use.used = use.least().Lasts == LastsOnce
		return Released, use.id
	}
	for _, i := range o.items {
		if i.state(now) == Pending && same(&i.call, &c) {
			i.times++
			return Waiting, i.id
		}
	}
	if waiting >= l.Pending || lately >= l.PerMinute {
		return Refused, ""
	}
	o.items = append(o.items, &told{id: id, call: c, asked: now, times: 1})
	return Waiting, id
}

func (o *oracle) vote(id string, p Person, yes bool, t Terms, now time.Time) error {
	i := o.items[slices.IndexFunc(o.items, func(i *told) bool { return i.id == id })]
	if i.state(now) != Pending {
		return ErrDecided
	}
	may := false
	for _, d := range i.call.Demands {
		may = may || counts(d, p, i.call.Launcher)
	}
	if !may {
		return ErrNotApprover
	}
	if yes {
		for _, b := range i.votes {
			if b.who.UID == p.UID {
				return ErrTwice
			}
		}
		for _, d := range i.call.Demands {
			if d.ValidFor > 0 && (t.Lasts == LastsSandbox || t.For > d.ValidFor) {
				return ErrTerms
			}
		}
		if t.Lasts == LastsOnce && t.Covers != CoversCall || t.For > 24*time.Hour {
			return ErrTerms
		}
	}
	i.votes = append(i.votes, ballot{p, yes, t, now})
	return nil
}

// What random sequences are made of.
var (
	people = []Person{
		{Known: true, UID: 0, Name: "root"}, {Known: true, UID: 1000, Name: "launcher"}, {Known: true, UID: 1001, Name: "alice", GIDs: []uint32{5, 77}},
		{Known: true, UID: 1002, Name: "bob", GIDs: []uint32{77}}, {Known: true, UID: 1003, Name: "carol", Role: true, Groups: []string{"leads"}}, {Known: true, UID: 1004, Name: "dave"},
	}
	rules = []struct {
		fingerprint string
		demands     []Demand
	}{
		{strings.Repeat("a", 64), []Demand{{Rule: "d/any", Quorum: 1, ExpiresAfter: 15 * time.Minute}}},
		{strings.Repeat("b", 64), []Demand{{Rule: "d/two", Quorum: 2, Approvers: []string{"gid:77", "uid:1000"}, ExpiresAfter: 15 * time.Minute, ValidFor: 20 * time.Minute}, {Rule: "d/alice", Quorum: 1, Approvers: []string{"user:alice", "group:leads"}, ExpiresAfter: 10 * time.Minute}}},
		{strings.Repeat("c", 64), []Demand{{Rule: "d/other", Quorum: 1, Separate: true, ExpiresAfter: time.Hour}}},
		{strings.Repeat("d", 64), []Demand{{Rule: "d/three", Quorum: 3, ExpiresAfter: 15 * time.Minute}}},
	}
	terms = []Terms{
		{}, {Lasts: LastsFor, For: 5 * time.Minute}, {Lasts: LastsFor, For: 40 * time.Minute, Covers: CoversTarget}, {Lasts: LastsSandbox, Covers: CoversTarget},
		{Lasts: LastsSandbox}, {Lasts: LastsFor, For: 15 * time.Minute, Covers: CoversTarget},
		{Covers: CoversTarget}, {Lasts: LastsFor, For: 25 * time.Hour},
	}
	destinations = []string{"server:bank/tool:pay", "server:bank/tool:refund"}
	values       = []string{"a1", "a2", "b"}
	start        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func someCall(n byte) Call {
	box := fmt.Sprintf("0000000%d", n&1)
	text := values[n>>2&3%3]
	rule := rules[n>>4&3]
	return Call{Sandbox: box, Scope: "org:acme/team:x/agent:y/sandbox:" + box, Launcher: 1000, Kind: Tool, Target: destinations[n>>1&1],
		Arguments: fmt.Sprintf("%064x", text), Fingerprint: rule.fingerprint, Demands: rule.demands}
}

// coverage counts what a run has come across, so that the property is not true
// of sequences in which nothing happens.
type coverage map[string]int

// play runs a sequence through the machine and the oracle, three bytes an act.
func play(t *testing.T, acts []byte, seen coverage) {
	t.Helper()
	var have []Request
	o := &oracle{}
	now, l := start, Limits{Pending: 4, PerMinute: 6}
	for n := 0; n+2 < len(acts); n += 3 {
		act, x, y := acts[n]%8, acts[n+1], acts[n+2]
		switch {
		case act < 4:
			c, id := someCall(x), fmt.Sprintf("r%04d", n)
			a, changed, err := Ask(have, &c, id, l, now)
			if err != nil {
				t.Fatal(err)
			}
			have = stored(have, changed)
			outcome, by := o.ask(c, id, l, now)
			if a.Outcome != outcome || a.ID != by {
				t.Fatalf("act %d: asking came to %d by %q (%s), the oracle says %d by %q", n/3, a.Outcome, a.ID, a.Reason, outcome, by)
			}
			seen[fmt.Sprint("ask ", a.Outcome, " ", a.Code)]++
			if i := slices.IndexFunc(have, func(r Request) bool { return r.ID == a.ID }); a.Outcome == Released {
				seen[fmt.Sprint("released by ", have[i].Grant.Covers, " ", have[i].Grant.Lasts, " ", have[i].Binding == c.Binding())]++
			}
		case act < 7 && len(have) > 0:
			i := max(0, len(have)-1-int(y>>5))
			p, yes := people[int(x)%len(people)], x>>4%5 != 0
			var tt Terms
			if yes {
				tt = terms[y&31%8]
			}
			r, err := have[i].Vote(p, yes, tt, "", now)
			want := o.vote(have[i].ID, p, yes, tt, now)
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Fatalf("act %d: %s votes %v on %s: %v, the oracle says %v", n/3, p.Name, yes, have[i].ID, err, want)
			}
			have[i] = r
			seen[fmt.Sprint("vote ", want)]++
		case act == 7 && y < 16:
			box := fmt.Sprintf("0000000%d", x&1)
			for i := range have {
				if have[i].Sandbox == box {
					have[i] = have[i].End(now)
				}
			}
			for _, i := range o.items {
				if i.call.Sandbox == box && i.over.IsZero() {
					i.over = now
				}
			}
		default:
			now = now.Add(time.Duration(x) * time.Duration(y) * 100 * time.Millisecond)
		}
		agree(t, n/3, have, o, now, seen)
	}
}

func stored(have, changed []Request) []Request {
	for _, c := range changed {
		if i := slices.IndexFunc(have, func(r Request) bool { return r.ID == c.ID }); i >= 0 {
			have[i] = c
		} else {
			have = append(have, c)
		}
	}
	return have
}

func agree(t *testing.T, act int, have []Request, o *oracle, now time.Time, seen coverage) {
	t.Helper()
	if len(have) != len(o.items) {
		t.Fatalf("act %d: %d requests, the oracle has %d", act, len(have), len(o.items))
	}
	for i, item := range o.items {
		r := have[i].At(now)
		if want := item.state(now); r.ID != item.id || r.State != want || r.Count != item.times {
			t.Fatalf("act %d: request %s is %s (asked for %d times), the oracle says %s (%d)\n%+v", act, r.ID, r.State, r.Count, want, item.times, r)
		}
		seen["state "+r.State.String()]++
	}
}

// TestMachineIsTheOracle plays random sequences, and sees that every state,
// outcome and error came about in them.
func TestMachineIsTheOracle(t *testing.T) {
	seen := coverage{}
	r := rand.New(rand.NewPCG(7, 11))
	for range 6000 {
		acts := make([]byte, 3*(1+r.IntN(60)))
		for i := range acts {
			acts[i] = byte(r.Uint32())
		}
		play(t, acts, seen)
	}
	for _, what := range []string{"ask 0 approval-denied", "ask 0 approval-limit", "ask 1 ", "ask 2 ", "vote <nil>", "vote " + ErrDecided.Error(), "vote " + ErrNotApprover.Error(),
		"vote " + ErrTwice.Error(), "vote " + ErrTerms.Error(), "state pending", "state approved", "state denied", "state expired", "state cancelled", "state superseded", "state consumed",
		"released by call once true", "released by call for true", "released by target for false", "released by target sandbox false"} {
		if seen[what] < 10 {
			t.Errorf("%q came about %d times only", what, seen[what])
		}
	}
	t.Log(seen)
}

func FuzzMachine(f *testing.F) {
	f.Add([]byte{0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0, 16, 0, 4, 18, 1, 5, 19, 1, 0, 16, 0, 7, 200, 200, 0, 16, 0})
	f.Fuzz(func(t *testing.T, acts []byte) {
		if len(acts) > 300 {
			acts = acts[:300]
		}
		play(t, acts, coverage{})
	})
}
