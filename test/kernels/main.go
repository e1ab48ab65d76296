// SPDX-License-Identifier: Apache-2.0

// Command kernels runs the product's tests on other kernels than the machine's:
// Debian's cloud kernels in QEMU with software emulation, so that it needs
// neither root nor /dev/kvm. What a kernel has and which tests are skipped on it
// must be what testdata says. See docs/KERNELS.md.
//
//	go run ./test/kernels [-short] [-only 6.1,newest] [-packages pkg/kernel] [-update] [-v]
//	go run ./test/kernels -only 6.1 -sh 'uname -r'
//	go run ./test/kernels -systemd [-only 6.12]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

// emulation lets one processor run at a time. With a thread for each, QEMU 7.2
// loses the race between processors of which one patches the other's code:
// Linux 7.3 dies by int3 when a tracepoint is attached.
const emulation = "tcg,thread=single"

// options are the flags.
type options struct {
	short, update, page, verbose bool
	systemd                      bool
	only, packages, script       string
	accel                        string
	jobs                         int
	limit                        time.Duration
}

func main() {
	var o options
	flag.BoolVar(&o.short, "short", false, "the oldest and the newest kernel, and the tests that say most")
	flag.BoolVar(&o.update, "update", false, "write what is seen to testdata instead of comparing")
	flag.BoolVar(&o.page, "page", false, "only write the tables of docs/KERNELS.md from testdata")
	flag.BoolVar(&o.verbose, "v", false, "print what tests print")
	flag.StringVar(&o.only, "only", "", "kernels, by the names of the table, with commas")
	flag.StringVar(&o.packages, "packages", "", "packages, with commas")
	flag.StringVar(&o.script, "sh", "", "only run this script of the guest's shell, and print what it prints")
	flag.BoolVar(&o.systemd, "systemd", false, "systemd is the guest's first program, and the tests are those of the installed unit")
	flag.StringVar(&o.accel, "accel", emulation, "QEMU's accelerator; kvm where it works")
	flag.IntVar(&o.jobs, "jobs", 2, "kernels at a time")
	flag.DurationVar(&o.limit, "limit", time.Hour, "for one kernel")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := test(ctx, &o)
	away := (*unreachable)(nil)
	switch {
	case errors.As(err, &away) && os.Getenv("RINGFENCE_CI") == "":
		fmt.Println("SKIP: no kernel was tested:", err)
	case err != nil:
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		stop()
		os.Exit(1)
	}
}

// prepared is one kernel that can be booted.
type prepared struct {
	kernel *kernel
	files  *kernelFiles
}

func test(ctx context.Context, o *options) error {
	if o.page {
		return writePage()
	}
	chosen, suites, err := o.choose()
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	rootDisk, kernels, work, err := ready(ctx, chosen, o.systemd)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	fmt.Println("building what is tested")
	treeDisk, guest, err := build(ctx, work, suites, o.systemd)
	if err != nil {
		return err
	}
	rows := make([]*row, len(kernels))
	var guests errgroup.Group
	guests.SetLimit(o.jobs)
	for i := range kernels {
		r := &row{kernel: kernels[i].kernel, release: kernels[i].files.release, part: o.short, verbose: o.verbose || o.script != ""}
		rows[i] = r
		t := &trial{files: kernels[i].files, jobs: o.plan(suites), systemd: o.systemd, guest: guest, work: work, root: rootDisk, tree: treeDisk, accel: o.accel, limit: o.limit}
		guests.Go(func() error {
			r.boot(ctx, t)
			if ctx.Err() != nil || o.script != "" {
				return context.Cause(ctx)
			}
			if o.systemd {
				return r.passed(ctx)
			}
			return r.judge(ctx, o.update)
		})
	}
	if err := guests.Wait(); err != nil {
		return err
	}
	if o.update {
		err = writePage()
	}
	return errors.Join(err, summary(rows))
}

// ready prepares the cache and makes a directory for this run, in which the
// root's image stays when another run replaces it. Runs wait for each other
// only here.
func ready(ctx context.Context, chosen []*kernel, systemd bool) (rootDisk string, kernels []prepared, work string, err error) {
	c, err := openCache()
	if err != nil {
		return "", nil, "", err
	}
	defer c.close()
	if rootDisk, kernels, err = c.prepare(ctx, chosen, systemd); err != nil {
		return "", nil, "", err
	}
	if work, err = os.MkdirTemp(c.dir, "run"); err != nil {
		return "", nil, "", err
	}
	own := filepath.Join(work, "root.ext4")
	if err := os.Link(rootDisk, own); err != nil {
		return "", nil, "", errors.Join(err, os.RemoveAll(work))
	}
	return own, kernels, work, nil
}

// plan lists the jobs of one guest.
func (o *options) plan(suites []suite) []plan.Job {
	if o.script != "" {
		return []plan.Job{{Name: "sh", Dir: tree, Argv: []string{"sh", "-c", o.script}, Seconds: int(o.limit.Seconds())}}
	}
	var jobs []plan.Job
	if !o.systemd {
		jobs = append(jobs, examine)
	}
	for i := range suites {
		j := suites[i].job()
		if o.systemd {
			j.Env = append(j.Env, "RINGFENCE_OWN_MACHINE=systemd")
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// choose returns the kernels and packages that the flags ask for.
func (o *options) choose() (kernels []*kernel, suites []suite, err error) {
	unknown := map[string]bool{}
	asked := func(list string) []string {
		words := strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
		for _, w := range words {
			unknown[w] = true
		}
		return words
	}
	only, names := asked(o.only), asked(o.packages)
	for i := range matrix {
		k := &matrix[i]
		if (len(only) == 0 && (k.short || !o.short)) || slices.Contains(only, k.name) {
			kernels = append(kernels, k)
			delete(unknown, k.name)
		}
	}
	table := packages
	if o.systemd {
		table = installed
	}
	for _, s := range table {
		s.part = (o.short || o.systemd) && s.short != ""
		if (len(names) == 0 && (s.part || !o.short)) || slices.Contains(names, s.name) {
			suites = append(suites, s)
			delete(unknown, s.name)
		}
	}
	for w := range unknown {
		return nil, nil, fmt.Errorf("the table has no %q", w)
	}
	return kernels, suites, nil
}

// prepare has everything on disk that does not depend on the checkout.
func (c *cache) prepare(ctx context.Context, chosen []*kernel, systemd bool) (root string, kernels []prepared, err error) {
	a, err := openArchive(ctx, c.path("apt"))
	if err != nil {
		return "", nil, err
	}
	if err := a.update(ctx); err != nil {
		return "", nil, err
	}
	name, wanted := "root", programs
	if systemd {
		name, wanted = "systemd", append(slices.Clone(programs), withSystemd...)
	}
	debs, err := a.fetch(ctx, true, wanted...)
	if err != nil {
		return "", nil, err
	}
	if root, err = c.rootImage(ctx, name, debs); err != nil {
		return "", nil, err
	}
	for _, k := range chosen {
		name, err := a.newest(ctx, k.image)
		if err != nil {
			return "", nil, fmt.Errorf("kernel %s: %w", k.name, err)
		}
		parts, err := a.parts(ctx, name)
		if err != nil {
			return "", nil, err
		}
		debs, err := a.fetch(ctx, false, parts...)
		if err != nil {
			return "", nil, err
		}
		files, err := c.kernel(ctx, debs)
		if err != nil {
			return "", nil, err
		}
		kernels = append(kernels, prepared{k, files})
	}
	return root, kernels, nil
}

// trial is one boot.
type trial struct {
	files            *kernelFiles
	jobs             []plan.Job
	systemd          bool
	guest            []byte
	work, root, tree string
	accel            string
	limit            time.Duration
}

func (t *trial) console() string { return filepath.Join(t.work, "console-"+t.files.release) }
