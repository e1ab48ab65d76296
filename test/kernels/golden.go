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

// expectation is what is committed of a kernel: what it has, and which tests
// are skipped on it, each with the feature that it lacks.
type expectation struct {
	fact.Kernel
	Skips map[string]map[string]string `json:"skips"` // package -> test -> reason
}

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
	if e.BPFLSM != seen.BPFLSM {
		say("BPF LSM is %t, expected %t", seen.BPFLSM, e.BPFLSM)
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
	return out
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
