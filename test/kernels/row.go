// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ringfence/ringfence/test/kernels/fact"
	"github.com/ringfence/ringfence/test/kernels/plan"
)

// row is one kernel of a run and what it came to.
type row struct {
	kernel   *kernel
	release  string
	verbose  bool
	part     bool // not every test of a package runs
	took     time.Duration
	outcomes []*outcome
	report   *fact.Report
	problems []string // besides failed tests
}

// boot runs the plan on the kernel.
func (r *row) boot(ctx context.Context, t *trial) {
	fmt.Printf("== %s: Linux %s\n", r.kernel.name, r.release)
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	p := plan.Plan{Jobs: t.jobs, Systemd: t.systemd}
	for _, j := range p.Jobs {
		r.outcomes = append(r.outcomes, &outcome{job: j.Name})
	}
	raw, err := json.Marshal(p)
	if err == nil {
		initrd := filepath.Join(t.work, "initrd-"+t.files.release)
		if err = t.files.initrd(ctx, initrd, t.guest, raw); err == nil {
			m := &machine{kernel: t.files.vmlinuz, initrd: initrd, disks: []string{t.root, t.files.modules, t.tree}, console: t.console(), processor: r.kernel.processor(), accel: t.accel, limit: t.limit}
			err = m.boot(ctx, r.tell)
		}
	}
	if err != nil {
		r.problems = append(r.problems, err.Error())
	}
	// A warning of the kernel is a finding, whatever tests say.
	if b, err := os.ReadFile(t.console()); err == nil && strings.Contains(string(b), "------------[ cut here ]------------") {
		r.problems = append(r.problems, "the kernel warned:\n"+tail(string(b), 60))
	}
}

// tell takes a message of the guest.
func (r *row) tell(m plan.Message) {
	for _, o := range r.outcomes {
		if o.job != m.Job {
			continue
		}
		switch m.Kind {
		case plan.Line:
			o.output = append(o.output, m.Text)
			if r.verbose {
				fmt.Println(strings.TrimPrefix(m.Text, "\x16"))
			}
		case plan.End:
			o.ended, o.end = true, m
			fmt.Printf("   %s: %s in %.0f s\n", r.kernel.name, o.job, m.Seconds)
		}
	}
}

// passed counts where nothing may be skipped.
func (r *row) passed(ctx context.Context) error {
	for _, o := range r.outcomes {
		if err := o.count(ctx); err != nil {
			return err
		}
		for t, why := range o.skips {
			r.problems = append(r.problems, fmt.Sprintf("%s was skipped: %s", t, why))
		}
	}
	return nil
}

// judge counts, and compares with what is committed or replaces that.
func (r *row) judge(ctx context.Context, update bool) error {
	now, err := r.count(ctx)
	switch {
	case err != nil:
		return err
	case update:
		return r.replace(now)
	case r.report == nil:
		return nil
	}
	want, err := readExpectation(r.kernel)
	if err != nil {
		return err
	}
	for _, d := range want.differences(now, r.part) {
		r.problems = append(r.problems, expectationFile(r.kernel)+": "+d)
	}
	return nil
}

// count reads what the guest printed.
func (r *row) count(ctx context.Context) (*expectation, error) {
	now := &expectation{Release: r.release, Skips: map[string]map[string]string{}, Costs: map[string]cost{}}
	for _, o := range r.outcomes {
		if o.job == examine.Name {
			report, err := seen(o.output)
			if err != nil {
				r.problems = append(r.problems, err.Error())
				continue
			}
			r.report, now.Kernel = report, report.Kernel
			continue
		}
		if err := o.count(ctx); err != nil {
			return nil, err
		}
		now.Skips[o.job] = o.skips
		maps.Copy(now.Costs, o.costs)
	}
	return now, nil
}

// replace writes what was seen; of a run that failed too little was. A part of
// the tests of a package adds to what is known of the others.
func (r *row) replace(now *expectation) error {
	for _, o := range r.outcomes {
		if !o.good() {
			r.problems = append(r.problems, expectationFile(r.kernel)+" is left as it is: "+o.job+" failed")
			return nil
		}
	}
	if r.report == nil || len(r.problems) > 0 {
		r.problems = append(r.problems, expectationFile(r.kernel)+" is left as it is")
		return nil
	}
	old, err := readExpectation(r.kernel)
	switch {
	case err == nil:
		now.merge(old, r.part)
	case !errors.Is(err, os.ErrNotExist):
		return err
	case r.part:
		r.problems = append(r.problems, expectationFile(r.kernel)+" is not there yet and needs all tests: leave out -short")
		return nil
	}
	return now.write(r.kernel)
}

// summary prints a table and returns an error if anything failed.
func summary(rows []*row) error {
	bad := 0
	for _, r := range rows {
		for _, p := range r.problems {
			bad++
			fmt.Printf("FAIL %s (Linux %s): %s\n", r.kernel.name, r.release, p)
		}
		for _, o := range r.outcomes {
			bad += len(o.problems)
			for _, p := range o.problems {
				fmt.Printf("FAIL %s (Linux %s): %s:\n%s\n", r.kernel.name, r.release, o.job, p)
			}
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KERNEL\tRELEASE\tLANDLOCK\tBPF LSM\tPACKAGE\tPASSED\tSKIPPED\tFAILED\tSECONDS")
	for _, r := range rows {
		abi, lsm := "-", "-"
		if r.report != nil {
			abi, lsm = fmt.Sprint(r.report.Kernel.Landlock), map[bool]string{true: "yes", false: "no"}[r.report.Kernel.Features["bpf_lsm"]]
		}
		for _, o := range r.outcomes {
			if o.job != examine.Name {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%.0f\n", r.kernel.name, r.release, abi, lsm, o.job, o.passed, len(o.skips), o.failed, o.end.Seconds)
			}
		}
		fmt.Fprintf(w, "%s\t\t\t\tall\t\t\t\t%.0f\n", r.kernel.name, r.took.Seconds())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if bad > 0 {
		return fmt.Errorf("%d problems on %d kernels", bad, len(rows))
	}
	return nil
}
