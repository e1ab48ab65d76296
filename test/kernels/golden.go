// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringfence/ringfence/test/kernels/fact"
)

// expectation is what is committed of a kernel: what it has, which tests are
// skipped on it, each with the feature that it lacks, and what programs cost
// its verifier.
type expectation struct {
	Release string `json:"release"` // of the kernel it was written on; another one of the same name may run
	fact.Kernel
	Skips map[string]map[string]string `json:"skips"` // package -> test -> reason
	Costs map[string]cost              `json:"costs"` // by program
}

// cost is what the verifier of one kernel says of a program.
type cost struct {
	Processed int `json:"processed"` // instructions
	Stack     int `json:"stack"`     // bytes
}

// growth is how much more a program may cost than recorded, in percent.
const growth = 10

func expectationFile(k *kernel) string {
	return filepath.Join("test/kernels/testdata", k.name+".json")
}

func (e *expectation) write(k *kernel) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(expectationFile(k), append(b, '\n'), 0o644)
}

func readExpectation(k *kernel) (*expectation, error) {
	b, err := os.ReadFile(expectationFile(k))
	if err != nil {
		return nil, err
	}
	e := &expectation{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(e); err != nil {
		return nil, fmt.Errorf("%s: %w", expectationFile(k), err)
	}
	return e, nil
}

// differences says what was seen and not expected, or the other way round, of
// the packages that ran. Of a part of their tests, skips may be missing.
func (e *expectation) differences(seen *expectation, part bool) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if e.Landlock != seen.Landlock {
		say("Landlock ABI is %d, expected %d", seen.Landlock, e.Landlock)
	}
	if !slices.Equal(e.Missing, seen.Missing) {
		say("required and missing are %q, expected %q", seen.Missing, e.Missing)
	}
	out = append(out, compare("feature ", e.Features, seen.Features)...)
	out = append(out, compare("idmapped mount of ", e.Idmap, seen.Idmap)...)
	for _, pkg := range slices.Sorted(maps.Keys(seen.Skips)) {
		want := maps.Clone(e.Skips[pkg])
		maps.DeleteFunc(want, func(test, _ string) bool {
			_, ok := seen.Skips[pkg][test]
			return part && !ok
		})
		out = append(out, compare("skip of "+pkg+" ", want, seen.Skips[pkg])...)
	}
	return append(out, e.costlier(seen)...)
}

// costlier lists programs that cost the verifier more than recorded, or are
// not those that are recorded. The verifier of another series is another one,
// and without TestVerifier there is nothing to compare.
func (e *expectation) costlier(seen *expectation) (out []string) {
	if len(seen.Costs) == 0 || seriesOf(e.Release) != seriesOf(seen.Release) {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(seen.Costs)) {
		is := seen.Costs[name]
		was, ok := e.Costs[name]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("program %s: its cost is not recorded", name))
		case 100*is.Processed > (100+growth)*was.Processed, 100*is.Stack > (100+growth)*was.Stack:
			out = append(out, fmt.Sprintf("program %s: %d instructions processed and %d bytes of stack, %d and %d recorded", name, is.Processed, is.Stack, was.Processed, was.Stack))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Costs)) {
		if _, ok := seen.Costs[name]; !ok {
			out = append(out, fmt.Sprintf("program %s: it is recorded and was not loaded", name))
		}
	}
	return out
}

// seriesOf is "6.1" for 6.1.0-57-cloud-amd64.
func seriesOf(release string) string {
	major, rest, _ := strings.Cut(release, ".")
	minor, _, _ := strings.Cut(rest, ".")
	return major + "." + minor
}

// merge takes over what a run of a part of the packages, or of a part of their
// tests, did not see. What is in no package of the table any more goes.
func (e *expectation) merge(old *expectation, part bool) {
	for _, s := range packages {
		now, ran := e.Skips[s.name]
		switch {
		case old.Skips[s.name] == nil, ran && !part:
		case !ran:
			e.Skips[s.name] = old.Skips[s.name]
		default:
			all := maps.Clone(old.Skips[s.name])
			maps.Copy(all, now)
			e.Skips[s.name] = all
		}
	}
	if len(e.Costs) == 0 && e.Release == old.Release {
		e.Costs = old.Costs
	}
}

func compare[V comparable](what string, want, have map[string]V) []string {
	var out []string
	both := maps.Clone(want)
	if both == nil {
		both = map[string]V{}
	}
	maps.Copy(both, have)
	for _, k := range slices.Sorted(maps.Keys(both)) {
		w, expected := want[k]
		h, seen := have[k]
		switch {
		case expected && !seen:
			out = append(out, fmt.Sprintf("%s%s: not seen, expected %v", what, k, w))
		case seen && !expected:
			out = append(out, fmt.Sprintf("%s%s: %v, not expected", what, k, h))
		case w != h:
			out = append(out, fmt.Sprintf("%s%s: %v, expected %v", what, k, h, w))
		}
	}
	return out
}

// seen reads the report of the examine program from a job's output.
func seen(output []string) (*fact.Report, error) {
	r := &fact.Report{}
	if err := json.Unmarshal([]byte(strings.Join(output, "\n")), r); err != nil {
		return nil, fmt.Errorf("examine printed %q: %w", output, err)
	}
	return r, nil
}
