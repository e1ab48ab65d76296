// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/kernels/fact"
	"github.com/ringfence/ringfence/test/kernels/plan"
)

func example() *expectation {
	return &expectation{
		Release: "6.1.0-57-cloud-amd64",
		Kernel:  fact.Kernel{Landlock: 2, Features: map[string]bool{"a": true, "b": false}, Idmap: map[string]bool{"ext4": true}, Missing: []string{}},
		Skips:   map[string]map[string]string{"pkg/kernel": {"TestOld": "kernel lacks b"}, "pkg/api": {}},
		Costs:   map[string]cost{"rf_a": {1000, 80}},
	}
}

func TestDifferences(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*expectation)
		part   bool
		want   string // in the only difference; "" is none
	}{
		"same":                      {func(*expectation) {}, false, ""},
		"another Landlock":          {func(e *expectation) { e.Landlock = 3 }, false, "Landlock ABI is 3, expected 2"},
		"a feature came":            {func(e *expectation) { e.Features["b"] = true }, false, "feature b: true, expected false"},
		"a feature went":            {func(e *expectation) { e.Features["a"] = false }, false, "feature a: false"},
		"a feature nobody knows":    {func(e *expectation) { e.Features["c"] = true }, false, "feature c: true, not expected"},
		"a feature was not asked":   {func(e *expectation) { delete(e.Features, "a") }, false, "feature a: not seen"},
		"idmap":                     {func(e *expectation) { e.Idmap["ext4"] = false }, false, "idmapped mount of ext4"},
		"required is missing":       {func(e *expectation) { e.Missing = []string{"a"} }, false, "required and missing"},
		"a test is skipped":         {func(e *expectation) { e.Skips["pkg/api"] = map[string]string{"TestX": "why"} }, false, "skip of pkg/api TestX: why, not expected"},
		"a test is skipped no more": {func(e *expectation) { e.Skips["pkg/kernel"] = nil }, false, "TestOld: not seen"},
		"skipped for another cause": {func(e *expectation) { e.Skips["pkg/kernel"]["TestOld"] = "x" }, false, "TestOld: x, expected kernel lacks b"},
		"a part did not reach it":   {func(e *expectation) { e.Skips["pkg/kernel"] = map[string]string{} }, true, ""},
		"a part skips more":         {func(e *expectation) { e.Skips["pkg/kernel"]["TestNew"] = "x" }, true, "TestNew: x, not expected"},
		"a package did not run":     {func(e *expectation) { delete(e.Skips, "pkg/kernel") }, false, ""},
		"ten percent":               {func(e *expectation) { e.Costs["rf_a"] = cost{1100, 88} }, false, ""},
		"more than ten percent":     {func(e *expectation) { e.Costs["rf_a"] = cost{1101, 80} }, false, "1101 instructions processed"},
		"more stack":                {func(e *expectation) { e.Costs["rf_a"] = cost{1000, 96} }, false, "96 bytes of stack"},
		"a new program":             {func(e *expectation) { e.Costs["rf_b"] = cost{1, 1} }, false, "rf_b: its cost is not recorded"},
		"a program does not load":   {func(e *expectation) { e.Costs = map[string]cost{"rf_b": {1, 1}} }, false, "rf_b"},
		"costs were not measured":   {func(e *expectation) { e.Costs = nil }, false, ""},
		"another series":            {func(e *expectation) { e.Release, e.Costs = "7.3.1", map[string]cost{"rf_a": {9000, 80}} }, false, ""},
	} {
		seen := example()
		c.change(seen)
		diff := example().differences(seen, c.part)
		if text := strings.Join(diff, "\n"); (len(diff) == 0) != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, want %q", name, diff, c.want)
		}
	}
	gone := example()
	gone.Costs = map[string]cost{"rf_c": {1, 1}}
	if diff := example().differences(gone, false); len(diff) != 2 {
		t.Errorf("one program more and one less: %q", diff)
	}
}

// TestReplace: what a run that failed saw is not taken for what is.
func TestReplace(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.MkdirAll("test/kernels/testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	report, err := json.Marshal(fact.Report{Kernel: example().Kernel})
	if err != nil {
		t.Fatal(err)
	}
	ran := func(k *kernel, output ...string) *row {
		return &row{kernel: k, release: "6.1.0-57-cloud-amd64", outcomes: []*outcome{
			{job: examine.Name, output: []string{string(report)}, ended: true},
			{job: "pkg/kernel", output: marked(output...), ended: true},
		}}
	}
	k := &matrix[0]
	pass := []string{"=== RUN   TestA", "=== ATTR  TestA verifier:rf_a 1 2 3", "    x.go:1: kernel lacks it", "--- SKIP: TestA (0.00s)", "PASS"}
	for name, break_ := range map[string]func(*row){
		"a job that was killed": func(r *row) { r.outcomes[1].end = plan.Message{Code: -1, Text: "killed"} },
		"a job that never came": func(r *row) { r.outcomes[1].ended = false },
		"the kernel warned":     func(r *row) { r.problems = []string{"the kernel warned"} },
		"the short form":        func(r *row) { r.part = true },
		"no report":             func(r *row) { r.outcomes[0].output = []string{"not found"} },
	} {
		r := ran(k, pass...)
		break_(r)
		if err := r.judge(t.Context(), true); err != nil || len(r.problems) == 0 {
			t.Errorf("%s: %v, problems %q", name, err, r.problems)
		}
		if _, err := readExpectation(k); !os.IsNotExist(err) {
			t.Fatalf("%s: was written: %v", name, err)
		}
	}
	r := ran(k, pass...)
	if err := r.judge(t.Context(), true); err != nil || len(r.problems) > 0 {
		t.Fatalf("%v, problems %q", err, r.problems)
	}
	r = ran(k, pass...)
	if err := r.judge(t.Context(), false); err != nil || len(r.problems) > 0 {
		t.Errorf("what was written does not compare: %v, %q", err, r.problems)
	}
	// A part of its tests adds to what is known of the others.
	r = ran(k, "=== RUN   TestB", "=== ATTR  TestB verifier:rf_a 1 4 3", "    x.go:1: kernel lacks it too", "--- SKIP: TestB (0.00s)", "PASS")
	r.part = true
	if err := r.judge(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if e, err := readExpectation(k); err != nil || e.Skips["pkg/kernel"]["TestA"] == "" || e.Skips["pkg/kernel"]["TestB"] == "" || e.Costs["rf_a"] != (cost{4, 3}) {
		t.Errorf("%+v, %v", e, err)
	}
	// Another package alone keeps the first one's skips and costs.
	r = ran(k, "=== RUN   TestB", "--- PASS: TestB (0.00s)", "PASS")
	r.outcomes[1].job = "pkg/api"
	if err := r.judge(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	e, err := readExpectation(k)
	if err != nil || e.Skips["pkg/kernel"]["TestA"] != "kernel lacks it" || e.Skips["pkg/api"] == nil || !maps.Equal(e.Costs, map[string]cost{"rf_a": {4, 3}}) {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestPage: docs/KERNELS.md says what testdata says, which is what a run of the
// matrix compares with the kernels.
func TestPage(t *testing.T) {
	t.Chdir("../..")
	columns, err := readColumns()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	page, err := render(string(raw), columns)
	if err != nil {
		t.Fatal(err)
	}
	if page != string(raw) {
		t.Errorf("the tables in %s are not those of testdata; write them with: go run ./test/kernels -page", pageFile)
	}
	columns[0].expectation = example()
	if other, err := render(page, columns); err != nil || other == page {
		t.Errorf("a kernel that has something else makes the same page: %v", err)
	}
	if _, err := render("nothing", columns); err == nil {
		t.Error("a page without a place for the tables was written")
	}
	for _, c := range columns[1:] {
		for _, s := range packages {
			if c.Skips[s.name] == nil {
				t.Errorf("%s: testdata knows nothing of %s: run make test-kernels KERNELS=-update", c.name, s.name)
			}
		}
	}
}
