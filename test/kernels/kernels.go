// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

// kernel is one row of the matrix.
type kernel struct {
	name  string         // of the expectation in testdata
	image *regexp.Regexp // names of Debian's packages; the newest is taken
	short bool           // part of the short form
	whole bool           // gets a processor with cmpxchg16b
}

// processor is everything that QEMU emulates. With cmpxchg16b and a second
// processor Linux 6.12 dies in its first second (seen with QEMU 7.2, one thread
// or two). Without it Linux 7.3 has no storage for sockets, so nothing can be
// adopted there.
func (k *kernel) processor() string {
	if k.whole {
		return "max"
	}
	return "max,cx16=off"
}

// matrix is every kernel that is tested, the oldest first.
var matrix = []kernel{
	{name: "6.1", image: series(`6\.1`), short: true},
	{name: "6.12", image: series(`6\.12`)},
	{name: "6.18", image: series(`6\.18`)},
	{name: "newest", image: series(`[7-9]\.[0-9]+`), short: true, whole: true},
}

// series are the cloud kernels of one: linux-image-6.1.0-50-cloud-amd64,
// linux-image-6.18.15+deb13-cloud-amd64.
func series(version string) *regexp.Regexp {
	return regexp.MustCompile(`^linux-image-` + version + `\.[0-9][0-9a-z.+~-]*-cloud-amd64$`)
}

// suite is a package whose tests run in the guest.
type suite struct {
	name    string // its directory
	skip    string // -test.skip
	short   string // -test.run of the short form, "" if it is not part of it
	seconds int
	part    bool // only what short says runs
}

// packages are those whose tests depend on the kernel. What is skipped says
// nothing about it: parsers, programs that the guest does not have, and an
// attempt that needs two processors at the same time. The controls of the
// attempts are left to `make test`: they need devices and modules of a whole
// machine. TestLocks judges what the guest has, and says what it has not.
var packages = []suite{
	{name: "pkg/kernel", short: only("Verifier", "Visibility", "Denied", "Allowed", "GuardSockets", "GuardEntries", "GuardPrivileges"), seconds: 3600},
	{name: "pkg/confine", short: only("AttemptsAreRefused", "View"), seconds: 600},
	{name: "pkg/seccomp", short: only("KernelAllows", "KernelAnswersENOSYS"), skip: "^TestProgramsWork$/^(python|node|go)$", seconds: 3600},
	{name: "pkg/harden", seconds: 300},
	{name: "pkg/workspace", skip: "^TestParseConfigRandomLikeGit$|^Fuzz", seconds: 600},
	{name: "pkg/refusal", seconds: 300},
	{name: "pkg/api", seconds: 600},
	{name: "pkg/audit/landlock", seconds: 300},
	{name: "pkg/sandbox", seconds: 600},
	{name: "pkg/gatewayd", seconds: 600},
	{name: "pkg/daemon", seconds: 600},
	{name: "test/escapes", skip: "^TestEscapes$/.*/^tcp-race-address$|^TestTakenOverInit$", short: only("ThirdLock"), seconds: 3600},
}

// installed are the tests that need a machine of their own with systemd.
var installed = []suite{{name: "test/faults", short: "^TestUnderSystemd$", seconds: 1500}}

// only is the -test.run of these tests: in the short form each layer is tried
// once, by what is quick without a processor of its own. What a kernel has is
// found out in full.
func only(names ...string) string { return "^Test(" + strings.Join(names, "|") + ")$" }

// program is the test program below the tree.
func (s *suite) program() string {
	return path.Join("bin/kernels", strings.ReplaceAll(s.name, "/", "-")+".test")
}

// slow is what waits of tests are multiplied with under emulation.
const slow = 10

func (s *suite) job() plan.Job {
	argv := []string{path.Join(tree, s.program()), "-test.v=test2json", fmt.Sprintf("-test.timeout=%ds", s.seconds)}
	if s.part {
		argv = append(argv, "-test.run="+s.short)
	}
	if s.skip != "" {
		argv = append(argv, "-test.skip="+s.skip)
	}
	return plan.Job{
		Name: s.name, Dir: path.Join(tree, s.name), Argv: argv, Seconds: s.seconds + 30,
		Env: []string{"RINGFENCE_TEST_TREE=" + tree, fmt.Sprintf("RINGFENCE_TEST_SLOW=%d", slow)},
	}
}

// examine asks the kernel what it has.
var examine = plan.Job{Name: "examine", Dir: "/", Argv: []string{path.Join(tree, "bin/kernels/examine")}, Seconds: 300}
