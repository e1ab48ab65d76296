// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"fmt"
	"slices"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// Documents are known by kind and name, whoever keeps them. Those of the API that
// root did not write give way to the policy directory, which is root's: they stay
// in the store and come back when the file goes.

// rootWrote says whether what an author wrote is root's word: a person's of uid 0,
// or the daemon's own.
func rootWrote(a store.Author) bool { return a.UID <= 0 }

// docsLocked are the documents of a source, of its present text if that is among
// present.
func (l *Library) docsLocked(name string, present []string) []policy.Document {
	s := l.sources[name]
	if slices.Contains(present, name) {
		return s.wanted
	}
	return s.docs
}

// kindName is what a document is known by.
type kindName struct{ kind, name string }

// claimsLocked are the files of the directory, by what they hold.
func (l *Library) claimsLocked(present []string) map[kindName]string {
	out := map[kindName]string{}
	for n, s := range l.sources {
		if s.origin != FromDirectory {
			continue
		}
		for _, d := range l.docsLocked(n, present) {
			out[kindName{d.Kind, d.Name}] = n
		}
	}
	return out
}

// aside is the file of the directory that a source gives way to, "" for none.
func (s *source) aside(claims map[kindName]string) string {
	if s.origin != FromAPI || s.byRoot {
		return ""
	}
	return claims[kindName{s.key.Kind, s.key.Name}]
}

// asideMistakeLocked tells of a document that gives way.
func (l *Library) asideMistakeLocked(name string, claims map[kindName]string) (Mistake, bool) {
	file := l.sources[name].aside(claims)
	if file == "" {
		return Mistake{}, false
	}
	key := l.sources[name].key
	p := policy.Problem{File: l.sources[name].place(name), Line: 1, Col: 1, Msg: fmt.Sprintf("the policy directory has the %s %q too (%s)", key.Kind, key.Name, file),
		Hint: "apply it under another name, and delete this one"}
	return Mistake{Problem: p, In: name, Origin: FromAPI, Stays: "that of the policy directory is in force, and this one is not"}, true
}
