// SPDX-License-Identifier: Apache-2.0

package approval

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Argument is one value of a call's arguments. Who lists them gives each value a
// path of its own: the names on the way to it, with a dot between them and every
// byte in them but letters, digits, "_", "@" and "-" percent-encoded; an element of
// a list by its number. A list or an object that has nothing in it, or that is not
// taken to pieces, is one of these, with "[]" or "{}" after its path.
type Argument struct {
	Path string `json:"path"`
	// Kind is "string", "number", "boolean" or "null"; "" of a list or an object. What
	// was kept before there were kinds has "" too, and no pattern frees it any more.
	Kind string `json:"kind,omitempty"`
	Hash string `json:"hash"` // SHA-256 over its kind and its value
	// Text is the value where it is kept; without Kept it is not, and only "*"
	// matches it.
	Text string `json:"text,omitempty"`
	Kept bool   `json:"kept,omitempty"`
}

// Pattern frees one argument: it may be what Glob says, of the kind that it was, where every argument that
// no pattern names has to be what it was. In Glob "*" is any number of any
// characters; all else is itself.
type Pattern struct {
	Path string `json:"path"`
	Glob string `json:"glob"`
}

// Bounds of arguments and patterns, in bytes but for the first two.
const (
	MaxArguments = 32
	MaxPatterns  = 8 // of one approver
	MaxPath      = 128
	MaxValue     = 128 // of a text that is kept, and of a glob
)

// String is the pattern as ParsePattern reads it.
func (p Pattern) String() string { return p.Path + "=" + p.Glob }

// ParsePattern reads PATH=GLOB.
func ParsePattern(text string) (Pattern, error) {
	path, glob, ok := strings.Cut(text, "=")
	p := Pattern{path, glob}
	if !ok {
		return Pattern{}, fmt.Errorf("%w: a pattern is PATH=GLOB, as max_uses=*", ErrTerms)
	}
	return p, p.Valid()
}

// Valid says why a pattern is none.
func (p *Pattern) Valid() error {
	switch {
	case !validPath(p.Path):
		return fmt.Errorf("%w: %q is no path of an argument: names with a dot between them, as filters.domain", ErrTerms, clip(p.Path, MaxPath))
	case len(p.Glob) > MaxValue || !utf8.ValidString(p.Glob):
		return fmt.Errorf("%w: the pattern of %s is not text of at most %d bytes", ErrTerms, p.Path, MaxValue)
	}
	return nil
}

// validPath says whether there can be an argument of that path which has a value.
func validPath(path string) bool {
	if len(path) > MaxPath {
		return false
	}
	for name := range strings.SplitSeq(path, ".") {
		if name == "" {
			return false
		}
		for i := range len(name) {
			if c := name[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_@-%", rune(c)) {
				return false
			}
		}
	}
	return true
}

// kinds are those of values that a pattern can free.
var kinds = []string{"string", "number", "boolean", "null"}

// Valid says why an argument is none.
func (a *Argument) Valid() error {
	path := strings.TrimSuffix(strings.TrimSuffix(a.Path, "[]"), "{}")
	if !validPath(path) || (path == a.Path) != slices.Contains(kinds, a.Kind) || path != a.Path && a.Kind != "" || len(a.Path) > MaxPath || !hash(a.Hash) || len(a.Text) > MaxValue || a.Text != "" && !a.Kept || a.Kept && path != a.Path {
		return fmt.Errorf("%w: the argument %q", ErrCall, clip(a.Path, MaxPath))
	}
	return nil
}

// validArguments says why a list of arguments is none: each path comes once, in
// order.
func validArguments(list []Argument) error {
	if len(list) > MaxArguments {
		return fmt.Errorf("%w: %d arguments", ErrCall, len(list))
	}
	for i := range list {
		if err := list[i].Valid(); err != nil {
			return err
		}
		if i > 0 && list[i-1].Path >= list[i].Path {
			return fmt.Errorf("%w: the argument %q is not in order", ErrCall, list[i].Path)
		}
	}
	return nil
}

// matches says whether a pattern of an argument's path is for its value, where the
// argument was approved. What is not kept may be anything of the same kind: who
// frees the name of a container does not free what may be set up in one.
func (p *Pattern) matches(approved, a *Argument) bool {
	if a.Kind != approved.Kind || !slices.Contains(kinds, a.Kind) || !validPath(a.Path) {
		return false
	}
	return p.Glob == "*" || a.Kept && globbed(p.Glob, a.Text)
}

// globbed says whether a text is what a glob says. Each run between two stars is
// taken where it comes first, which is right without any going back.
func globbed(glob, text string) bool {
	head, rest, star := strings.Cut(glob, "*")
	if !star {
		return text == glob
	}
	text, ok := strings.CutPrefix(text, head)
	for ok {
		if head, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(text, head)
		}
		_, text, ok = strings.Cut(text, head)
	}
	return false
}

// alike says whether arguments are those that were approved, but for what
// patterns free. Neither list may have an argument that the other has not.
func alike(approved, now []Argument, patterns []Pattern) bool {
	if len(approved) != len(now) {
		return false
	}
	for i := range now {
		if approved[i].Path != now[i].Path {
			return false
		}
		named, fits := false, true
		for j := range patterns {
			if p := &patterns[j]; p.Path == now[i].Path {
				named, fits = true, fits && p.matches(&approved[i], &now[i])
			}
		}
		if !fits || !named && approved[i].Hash != now[i].Hash {
			return false
		}
	}
	return true
}

// validPatterns says why an approver cannot give these on the request: each must
// name an argument of it, and be for the value that it has.
func (r *Request) validPatterns(t *Terms) error {
	switch {
	case t.Covers != CoversArguments && len(t.Args) > 0:
		return fmt.Errorf("%w: patterns of arguments are of a grant for a time or for the life of the sandbox, and of nothing else", ErrTerms)
	case t.Covers == CoversArguments && !r.Listed:
		return fmt.Errorf("%w: a request about %s has no arguments that can be named", ErrTerms, r.Kind)
	case len(t.Args) > MaxPatterns:
		return fmt.Errorf("%w: %d patterns are more than %d", ErrTerms, len(t.Args), MaxPatterns)
	}
	for i := range t.Args {
		p := &t.Args[i]
		if err := p.Valid(); err != nil {
			return err
		}
		if slices.ContainsFunc(t.Args[:i], func(o Pattern) bool { return o.Path == p.Path }) {
			return fmt.Errorf("%w: %s has two patterns", ErrTerms, p.Path)
		}
		at := slices.IndexFunc(r.Args, func(a Argument) bool { return a.Path == p.Path })
		if at < 0 {
			return fmt.Errorf("%w: this call has no argument %s%s", ErrTerms, p.Path, r.nearest(p.Path))
		}
		if a := &r.Args[at]; !p.matches(a, a) {
			if !a.Kept {
				return fmt.Errorf("%w: the value of %s is not kept, so only %s=* can be given", ErrTerms, p.Path, p.Path)
			}
			return fmt.Errorf("%w: %s of this very call is %q, which is not %s", ErrTerms, p.Path, a.Text, p.Glob)
		}
	}
	return nil
}

// nearest says which argument somebody may have meant: the one that begins or ends
// most like it.
func (r *Request) nearest(path string) string {
	best, most := "", -1
	for i := range r.Args {
		a := r.Args[i].Path
		head, tail := 0, 0
		for head < min(len(a), len(path)) && a[head] == path[head] {
			head++
		}
		for tail < min(len(a), len(path))-head && a[len(a)-1-tail] == path[len(path)-1-tail] {
			tail++
		}
		if head+tail > most && validPath(a) {
			best, most = a, head+tail
		}
	}
	if best == "" {
		return ": it has none that can be named"
	}
	return "; the nearest is " + best
}

// both are the patterns that two approvers agree on: what only one of them has
// freed is not, and what both have has to match both.
func both(a, b []Pattern) (out []Pattern) {
	for _, list := range [2][2][]Pattern{{a, b}, {b, a}} {
		for _, p := range list[0] {
			if slices.ContainsFunc(list[1], func(o Pattern) bool { return o.Path == p.Path }) && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(x, y Pattern) int { return strings.Compare(x.String(), y.String()) })
	return out
}
