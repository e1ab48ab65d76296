// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
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

// lets says whether every approver alone has let a call pass.
func (o *told) lets(c *Call) bool {
	for _, b := range o.votes {
		ok := same(&o.call, c) || b.terms.Covers == CoversTarget
		if b.terms.Covers == CoversArguments {
			ok = b.terms.frees(o.call.Args, c.Args)
		}
		if !ok {
			return false
		}
	}
	return true
}

// frees says whether one approver's terms are for these arguments.
func (t *Terms) frees(asked, now []Argument) bool {
	values := func(list []Argument) map[string]Argument {
		m := map[string]Argument{}
		for _, a := range list {
			m[a.Path] = a
		}
		return m
	}
	was, is := values(asked), values(now)
	for path := range was {
		if _, ok := is[path]; !ok {
			return false
		}
	}
	for path, v := range is {
		old, ok := was[path]
		fits := v == old
		for _, p := range t.Args {
			if p.Path == path {
				fits = v.Kind == old.Kind && (p.Glob == "*" || v.Kept && regexp.MustCompile("^(?s:"+strings.ReplaceAll(regexp.QuoteMeta(p.Glob), `\*`, ".*")+")$").MatchString(v.Text))
			}
		}
		if !ok || !fits {
			return false
		}
	}
	return true
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

// ask asks for all calls, or for none of them.
func (o *oracle) ask(calls []*Call, newID func() string, l Limits, now time.Time) (Outcome, []string) {
	ids := make([]string, len(calls))
	for _, i := range o.items {
		for _, c := range calls {
			if s := i.state(now); (s == Pending || s == Approved) && same(&i.call, c) && i.call.Fingerprint != c.Fingerprint {
				i.outdone = now
			}
		}
	}
	for n, c := range calls {
		for _, i := range o.items {
			if i.state(now) == Denied && same(&i.call, c) && i.call.Fingerprint == c.Fingerprint && now.Sub(i.votes[len(i.votes)-1].at) < 5*time.Minute {
				ids[n] = i.id // the last of them
			}
		}
		if ids[n] != "" {
			return Refused, ids
		}
	}
	uses, all := make([]*told, len(calls)), true
	for n, c := range calls {
		uses[n] = o.grant(c, now)
		all = all && uses[n] != nil
	}
	if all {
		for n, use := range uses {
			use.used, ids[n] = use.least().Lasts == LastsOnce, use.id
		}
		return Released, ids
	}
	waiting, lately := 0, 0
	for _, i := range o.items {
		if i.call.Sandbox == calls[0].Sandbox && i.state(now) == Pending {
			waiting++
		}
		if i.call.Sandbox == calls[0].Sandbox && now.Sub(i.asked) < time.Minute {
			lately++
		}
	}
	waits, fresh := make([]*told, len(calls)), 0
	for n, c := range calls {
		for _, i := range o.items {
			if uses[n] == nil && i.state(now) == Pending && same(&i.call, c) {
				waits[n] = i
			}
		}
		if uses[n] == nil && waits[n] == nil {
			fresh++
		}
	}
	if fresh > 0 && (waiting+fresh > l.Pending || lately+fresh > l.PerMinute) {
		return Refused, ids
	}
	for n, c := range calls {
		switch {
		case uses[n] != nil:
		case waits[n] != nil:
			waits[n].times++
			ids[n] = waits[n].id
		default:
			ids[n] = newID()
			o.items = append(o.items, &told{id: ids[n], call: *c, asked: now, times: 1})
		}
	}
	return Waiting, ids
}

// grant is what would be used for a call: of those that last the longest way, the
// oldest.
func (o *oracle) grant(c *Call, now time.Time) (use *told) {
	for _, i := range o.items {
		if i.call.Sandbox != c.Sandbox || i.state(now) != Approved || i.call.Fingerprint != c.Fingerprint || i.call.Target != c.Target || i.call.Kind != c.Kind || i.call.Definition != c.Definition {
			continue
		}
		if i.lets(c) && (use == nil || i.least().Lasts > use.least().Lasts) {
			use = i
		}
	}
	return use
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
		if (t.Lasts == LastsOnce || t.Covers != CoversArguments) && len(t.Args) > 0 || t.Covers == CoversArguments && !t.frees(i.call.Args, i.call.Args) {
			return ErrTerms
		}
		for _, p := range t.Args {
			if !slices.ContainsFunc(i.call.Args, func(a Argument) bool { return a.Path == p.Path }) {
				return ErrTerms
			}
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
		{Lasts: LastsFor, For: 15 * time.Minute, Covers: CoversArguments}, {Lasts: LastsFor, For: 15 * time.Minute, Covers: CoversArguments, Args: []Pattern{{"amount", "1*"}, {"key", "*"}}},
		{Lasts: LastsFor, For: 10 * time.Minute, Covers: CoversArguments, Args: []Pattern{{"amount", "*2"}}}, {Lasts: LastsSandbox, Covers: CoversArguments, Args: []Pattern{{"amount", "*"}, {"to", "shop-*"}}},
		{Lasts: LastsFor, For: 10 * time.Minute, Covers: CoversArguments, Args: []Pattern{{"amount", "1?"}}}, {Lasts: LastsSandbox, Covers: CoversArguments, Args: []Pattern{{"memo", "*"}}},
		{Lasts: LastsSandbox, Covers: CoversArguments, Args: []Pattern{{"key", "k*"}}}, {Lasts: LastsFor, For: 5 * time.Minute, Args: []Pattern{{"amount", "*"}}},
	}
	destinations = []string{"server:bank/tool:pay", "server:bank/tool:refund"}
	values       = []string{"a1", "a2", "b", "c"}
	start        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// argumentsOf lists the values' arguments; what "key" is, nobody keeps.
var argumentsOf = map[string][]Argument{
	"a1": {arg("amount", "10"), {Path: "key", Kind: "string", Hash: fmt.Sprintf("%064x", "k1")}, arg("to", "shop-a")},
	"a2": {arg("amount", "12"), {Path: "key", Kind: "string", Hash: fmt.Sprintf("%064x", "k1")}, arg("to", "shop-a")},
	"b":  {arg("amount", "10"), {Path: "key", Kind: "string", Hash: fmt.Sprintf("%064x", "k1")}, arg("memo", "x"), arg("to", "shop-a")},
	"c":  {arg("amount", "112"), {Path: "key", Kind: "string", Hash: fmt.Sprintf("%064x", "k2")}, arg("to", "shop-a")},
	"d":  {{Path: "amount", Kind: "number", Hash: fmt.Sprintf("%064x", "number 112"), Text: "112", Kept: true}, {Path: "key", Kind: "string", Hash: fmt.Sprintf("%064x", "k2")}, arg("to", "shop-a")},
}

func arg(path, text string) Argument {
	return Argument{Path: path, Kind: "string", Hash: fmt.Sprintf("%064x", text), Text: text, Kept: true}
}

func someCall(n byte) Call {
	box := fmt.Sprintf("0000000%d", n&1)
	text := values[n>>2&3]
	if text == "c" && n>>6 == 3 {
		text = "d" // seldom: the same, but a number
	}
	rule := rules[n>>4&3]
	return Call{Sandbox: box, Scope: "org:acme/team:x/agent:y/sandbox:" + box, Launcher: 1000, Kind: Tool, Target: destinations[n>>1&1],
		Arguments: fmt.Sprintf("%064x", text), Args: argumentsOf[text], Listed: true, Fingerprint: rule.fingerprint, Demands: rule.demands}
}

// coverage counts what a run has come across, so that the property is not true
// of sequences in which nothing happens.
type coverage map[string]int

// play runs a sequence through the machine and the oracle, three bytes an act.
func play(t *testing.T, acts []byte, seen coverage) {
	t.Helper()
	var have []Request
	o := &oracle{}
	now, l := start, Limits{Pending: 5, PerMinute: 9}
	for n := 0; n+2 < len(acts); n += 3 {
		act, x, y := acts[n]%8, acts[n+1], acts[n+2]
		switch {
		case act < 4:
			have = ask(t, n, someCalls(act, x, y), have, o, l, now, seen)
		case act < 7 && len(have) > 0:
			i := max(0, len(have)-1-int(y>>5))
			p, yes := people[int(x)%len(people)], x>>4%5 != 0
			var tt Terms
			if yes {
				tt = terms[int(y&31)%len(terms)]
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

// someCalls are one call, or several different ones of one sandbox.
func someCalls(act, x, y byte) []*Call {
	one := someCall(x)
	calls := []*Call{&one}
	if act > 1 {
		for _, n := range []byte{y, y>>2 ^ x} {
			c := someCall(n&^1 | x&1)
			if !slices.ContainsFunc(calls, func(o *Call) bool { return same(o, &c) }) {
				calls = append(calls, &c)
			}
		}
	}
	return calls
}

func ids(n int) func() string {
	return func() string { n++; return fmt.Sprintf("r%04d", n) }
}

// ask asks both.
func ask(t *testing.T, n int, calls []*Call, have []Request, o *oracle, l Limits, now time.Time, seen coverage) []Request {
	t.Helper()
	a, changed, err := AskAll(have, calls, ids(10*n), l, now)
	if err != nil {
		t.Fatal(err)
	}
	have = stored(have, changed)
	outcome, by := o.ask(calls, ids(10*n), l, now)
	if a.Outcome != outcome || !slices.Equal(a.IDs, by) {
		t.Fatalf("act %d: asking came to %d by %q (%s), the oracle says %d by %q", n/3, a.Outcome, a.IDs, a.Reason, outcome, by)
	}
	several := ""
	if len(calls) > 1 {
		several = "several "
	}
	seen[fmt.Sprint("ask ", several, a.Outcome, " ", a.Code)]++
	if a.Outcome == Waiting && slices.Contains(a.IDs, "") {
		seen["one of several has a grant"]++
	}
	for k, id := range a.IDs {
		i := slices.IndexFunc(have, func(r Request) bool { return r.ID == id })
		if a.Outcome != Released {
			break
		}
		r := &have[i]
		seen[fmt.Sprint("released by ", several, r.Grant.Covers, " ", r.Grant.Lasts, " ", r.Binding == calls[k].Binding())]++
		if len(r.Votes) > 1 && r.Grant.Covers == CoversArguments && r.Binding != calls[k].Binding() {
			seen["released by what two agreed on"]++
		}
	}
	return have
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
		often(r, acts)
		play(t, acts, seen)
	}
	for _, what := range []string{"ask 0 approval-denied", "ask 0 approval-limit", "ask 1 ", "ask 2 ", "vote <nil>", "vote " + ErrDecided.Error(), "vote " + ErrNotApprover.Error(),
		"vote " + ErrTwice.Error(), "vote " + ErrTerms.Error(), "state pending", "state approved", "state denied", "state expired", "state cancelled", "state superseded", "state consumed",
		"released by call once true", "released by call for true", "released by target for false", "released by target sandbox false",
		"released by arguments for false", "released by arguments sandbox false", "released by what two agreed on", "one of several has a grant", "ask several 0 approval-denied",
		"ask several 0 approval-limit", "ask several 1 ", "ask several 2 ", "released by several call once true", "released by several arguments for false"} {
		if seen[what] < 10 {
			t.Errorf("%q came about %d times only", what, seen[what])
		}
	}
	t.Log(seen)
}

// often has most calls of a sequence be alike, so that they meet what was given,
// and most votes be on the newest, and alike.
func often(r *rand.Rand, acts []byte) {
	base := byte(r.Uint32())
	moods := [][]byte{{0}, {8, 9, 11}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}
	mood := moods[r.IntN(len(moods))]
	for n := 0; n+2 < len(acts); n += 3 {
		switch act := acts[n] % 8; {
		case r.IntN(4) == 0:
		case act < 4:
			acts[n+1], acts[n+2] = base&^12|acts[n+1]&12, base&^12|acts[n+2]&12
		case act < 7:
			acts[n+1] |= 16 // yes
			acts[n+2] = acts[n+2]&32 | mood[r.IntN(len(mood))]
		}
	}
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
