// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/locks"
)

// TestLocks takes the table of docs/THREATS.md at its word. Each attempt of a
// row is made in the whole product, which refuses; without any of it, where it
// gets through; and behind each lock of the row alone, with all other layers
// left out, where it does not. So no lock of a row depends on another.
func TestLocks(t *testing.T) {
	b := newBench(t)
	ways := b.known(t)
	escaped := b.whole(t, ways)
	b.prepare(t, ways)
	b.run(t)
	pairs := 0
	for _, w := range ways {
		t.Run(w.Name, func(t *testing.T) { pairs += b.judgeWay(t, w, escaped) })
	}
	t.Logf("%d rows, %d attempts behind one lock alone", len(ways), pairs)
}

// known are the rows that have attempts. They must all exist.
func (b *bench) known(t *testing.T) (out []*locks.Way) {
	t.Helper()
	for _, w := range locks.Ways() {
		for _, name := range w.Attempts {
			if b.attempt(name) == nil {
				t.Errorf("%s: there is no attempt %s", w.Name, name)
			}
		}
		if len(w.Attempts) > 0 {
			out = append(out, &w)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return out
}

func (p *place) attempt(name string) *attempt {
	i := slices.IndexFunc(p.attempts, func(a attempt) bool { return a.Name == name })
	if i < 0 {
		return nil
	}
	return &p.attempts[i]
}

// wholes are the launches of the whole product: with and without unix sockets.
var wholes = []launch{
	{name: "locks-open", args: []string{"--profile", "coding"}, are: []string{"coding", "unix-sockets"}},
	{name: "locks-closed", args: []string{"--profile", closed}, are: []string{"closed"}},
}

// whole makes every attempt in sandboxes of the product and names those that
// were not refused.
func (b *bench) whole(t *testing.T, ways []*locks.Way) map[string]string {
	t.Helper()
	escaped := map[string]string{}
	for _, l := range wholes {
		var host, rest []*attempt
		seen := map[string]bool{}
		for _, w := range ways {
			for _, name := range w.Attempts {
				a := b.attempt(name)
				switch {
				case seen[name] || w.Closed != (l.name == "locks-closed"):
				case !l.takes(a):
					t.Errorf("%s: %s is no escape in %s", w.Name, name, l.name)
				case slices.Contains(a.Params, "hostpid"): // among few processes, whose numbers cannot be the host's
					host = append(host, a)
				default:
					rest = append(rest, a)
				}
				seen[name] = true
			}
		}
		need(t, b.world.Reset())
		for _, rows := range [][]*attempt{host, rest} {
			if len(rows) == 0 {
				continue
			}
			for _, o := range b.batch(t, b.wire, &l, rows) {
				if o.result.OK || len(o.effects) > 0 || !o.alive {
					escaped[o.row.Name] = strings.Join(append(o.effects, o.result.Detail), " ")
				}
			}
		}
	}
	return escaped
}

// judgeWay says what is wrong with a row and returns how many attempts were
// made behind one lock of it.
func (b *bench) judgeWay(t *testing.T, w *locks.Way, escaped map[string]string) (n int) {
	real := 0
	for _, name := range w.Attempts {
		if what, ok := escaped[name]; ok {
			t.Errorf("%s: not refused in the whole product: %s", name, what)
		}
		a, control := b.attempt(name), b.trials[trialKey{"", false, name}]
		if !control.passed {
			if len(a.Needs) == 0 {
				t.Errorf("%s does not get through without any lock (%s): %s", name, a.Control, control.what)
			}
			t.Logf("%s: not shown, this machine lacks %v: %s", name, a.Needs, control.what)
			continue
		}
		real++
		for _, l := range w.Locks {
			if len(l.Tests) > 0 || b.lacks(l) != "" {
				continue
			}
			n++
			if got := b.trials[trialKey{l.String(), w.Closed, name}]; got.passed || !got.made {
				t.Errorf("%s gets through %s alone: %s", name, l, got.what)
			}
		}
	}
	for _, l := range w.Locks {
		if why := b.lacks(l); why != "" {
			t.Logf("%s: not shown, this kernel lacks %s", l, why)
		}
	}
	if real == 0 {
		t.Logf("nothing of the row can be shown on this machine")
	}
	return n
}

// prepare notes what has to be made behind what.
func (b *bench) prepare(t *testing.T, ways []*locks.Way) {
	t.Helper()
	for _, w := range ways {
		for _, name := range w.Attempts {
			b.want(setting{as: b.attempt(name).As}, name)
			for _, l := range w.Locks {
				if len(l.Tests) == 0 && b.lacks(l) == "" {
					b.want(setting{lock: l.String(), layers: l.Layers, closed: w.Closed, as: b.attempt(name).As}, name)
				}
			}
		}
	}
}
