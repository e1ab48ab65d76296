// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"fmt"

	"github.com/ringfence/ringfence/pkg/policy"
)

// Mistake is a problem of a file that is present, and what holds all the same.
type Mistake struct {
	policy.Problem
	In     string // the file or directory whose present form is not in force
	Origin Origin
	Stays  string // what of it is in force: one clause
}

// Error is the problem and what holds.
func (m Mistake) Error() string { return m.Problem.Error() + "; " + m.Stays }

func (l *Library) mistakesLocked() []Mistake {
	var out []Mistake
	claims := l.claimsLocked(nil)
	for _, name := range l.namesLocked() {
		for _, p := range l.sources[name].problems {
			out = append(out, Mistake{Problem: p, In: name, Origin: l.sources[name].origin, Stays: l.staysLocked(name)})
		}
		if m, ok := l.asideMistakeLocked(name, claims); ok {
			out = append(out, m)
		}
	}
	return out
}

func (l *Library) staysLocked(name string) string {
	s := l.sources[name]
	switch {
	case name == l.o.Dir:
		return "what was read from it before stays in force"
	case len(s.docs) == 0:
		return "nothing of it is in force"
	case s.since == 0: // of a former run
		return "its last good form stays in force"
	}
	return fmt.Sprintf("its form of revision %d stays in force", s.since)
}
