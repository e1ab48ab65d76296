// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"
)

func goodStatus() map[string]string {
	return map[string]string{
		"Uid": "1001\t1001\t1001\t1001", "Gid": "1002\t1002\t1002\t1002", "Groups": "1003 1004",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	}
}

func (w *expectation) check(st map[string]string) (d differences) {
	w.checkIdentity(st, "process 7", &d)
	w.checkCalls(st, "process 7", &d)
	return d
}

func TestAttestationOfAThread(t *testing.T) {
	w := &expectation{uid: 1001, operators: 77, filters: 2}
	if d := w.check(goodStatus()); len(d) > 0 {
		t.Fatalf("the good one: %v", d)
	}
	for _, c := range []struct{ field, value, layer, want string }{
		{"Uid", "1001\t0\t1001\t1001", LayerIdentity, "host uid 0"},
		{"Uid", "1001\t1001\t1009\t1001", LayerIdentity, "1009\\t1001\" instead of 1001"},
		{"Uid", "", LayerIdentity, "runs as uid \"\" instead"},
		{"Gid", "1002\t0\t1002\t1002", LayerIdentity, "host gid 0"},
		{"Gid", "77\t77\t77\t77", LayerIdentity, "operators' group"},
		{"Groups", "1003 0", LayerIdentity, "host groups 0"},
		{"Groups", "1003 77", LayerIdentity, "operators' group"},
		{"CapBnd", "0000000000000400", LayerIdentity, "CapBnd"},
		{"CapEff", "", LayerIdentity, "CapEff"},
		{"NoNewPrivs", "0", LayerIdentity, "no_new_privs"},
		{"Seccomp", "0", LayerCalls, "no system call filter"},
		{"Seccomp_filters", "1", LayerCalls, "1 system call filters where init has 2"},
	} {
		bad := goodStatus()
		bad[c.field] = c.value
		d := w.check(bad)
		if len(d) == 0 || d[0].Layer != c.layer || !strings.Contains(d.String(), c.want) {
			t.Errorf("%s = %q: %v, want %s %q", c.field, c.value, d, c.layer, c.want)
		}
	}
}

func TestAttestationOfNamespaces(t *testing.T) {
	host, err := namespacesOf("self")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]uint64{}
	for _, n := range namespaces {
		own[n] = host[n] + 1
	}
	if errs := sharedNamespaces(own, host); len(errs) > 0 {
		t.Error(errs)
	}
	for _, n := range namespaces {
		shared := maps.Clone(own)
		shared[n] = host[n]
		if errs := sharedNamespaces(shared, host); (len(errs) == 0) != (n == "user") {
			t.Errorf("shared %s: %v", n, errs)
		}
		delete(shared, n)
		if errs := sharedNamespaces(shared, host); len(errs) == 0 {
			t.Errorf("%s was not noted and nobody minds", n)
		}
		theirs := maps.Clone(host)
		theirs[n]++ // the sandbox's; this process is in another
		w := &expectation{namespaces: namespaceLinks(theirs)}
		var d differences
		if err := w.thread(os.Getpid(), &d); err != nil || !strings.Contains(d.String(), "another "+n+" namespace") {
			t.Errorf("in another %s namespace: %v, %v", n, d, err)
		}
	}
	var d differences
	if err := new(expectation).thread(999999999, &d); !os.IsNotExist(err) || len(d) > 0 {
		t.Errorf("a thread that has ended: %v, %v", err, d)
	}
}

// A status is as the kernel writes it, whatever a process calls itself.
func TestStatusOfAProcessWithAStrangeName(t *testing.T) {
	st := parseStatus([]byte("Name:\tx\\nSeccomp:\t2\nState:\tR (running)\nTgid:\t7\nGroups:\t \nSeccomp:\t0\nnonsense\n"))
	if st["Seccomp"] != "0" || st["State"] != "R (running)" || st["Tgid"] != "7" || st["Groups"] != "" {
		t.Errorf("%q", st)
	}
	if _, there := st["Name"]; there {
		t.Error("the name counts for nothing")
	}
}

func FuzzStatus(f *testing.F) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("Uid:\nGid\n:\nSeccomp:2:3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st := parseStatus(b)
		if len(st) > len(statusFields) {
			t.Errorf("%d fields", len(st))
		}
		w := &expectation{uid: 1, filters: 1}
		if d := w.check(st); len(d) == 0 && (st["Seccomp"] != "2" || st["NoNewPrivs"] != "1" || st["CapEff"] == "") {
			t.Errorf("nothing is wrong with %q", st)
		}
	})
}

func TestLayersSayWhatWasFound(t *testing.T) {
	s := &Sandbox{}
	list, at := s.Layers()
	if !at.IsZero() || len(list) != len(layers) {
		t.Errorf("%v at %v", list, at)
	}
	s.note(differences{{Layer: LayerNetwork, Text: "a stranger", Tolerated: true}, {Layer: LayerCalls, Text: "no filter"}, {Layer: LayerCalls, Text: "a stranger", Tolerated: true}}, suspicions{})
	want := map[string]LayerState{LayerNetwork: LayerDegraded, LayerCalls: LayerBroken}
	list, at = s.Layers()
	if at.IsZero() {
		t.Error("it was never looked at")
	}
	for _, l := range list {
		state := want[l.Name]
		if state == "" {
			state = LayerEnforced
		}
		if l.State != state || l.Detail == "" {
			t.Errorf("%+v, want %s", l, state)
		}
		if l.Name == LayerCalls && l.Detail != "no filter; a stranger" {
			t.Errorf("detail %q", l.Detail)
		}
	}
	if s.note(differences{{Layer: LayerNetwork, Text: "a stranger", Tolerated: true}, {Layer: LayerCalls, Text: "no filter"}, {Layer: LayerCalls, Text: "a stranger", Tolerated: true}}, suspicions{}) {
		t.Error("the same again is something else")
	}
}

// However many are due at once, each gets its turn within two intervals, and
// none twice in one.
func TestTheMinuteIsSpread(t *testing.T) {
	const every, n = time.Minute, 1000
	start := time.Unix(1000, 0)
	var list []*Sandbox
	for range n {
		list = append(list, &Sandbox{}) // adopted together, never looked at by this keeper
	}
	looks := map[*Sandbox]int{}
	most := 0
	for part := range rounds {
		now := start.Add(time.Duration(part) * every / rounds)
		turn := due(list, now, every)
		most = max(most, len(turn))
		for _, s := range turn {
			looks[s]++
			s.attested = now
		}
	}
	if len(looks) != n || most > 2*n/rounds+1 {
		t.Errorf("%d of %d were looked at, at most %d at once", len(looks), n, most)
	}
	for _, times := range looks {
		if times != 1 {
			t.Errorf("one was looked at %d times in an interval", times)
		}
	}
	if turn := due(list[:1], start.Add(3*time.Minute), every); len(turn) != 1 {
		t.Errorf("a single one: %d", len(turn))
	}
}
