// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

func TestSeriesNames(t *testing.T) {
	for name, want := range map[string]string{
		"linux-image-6.1.0-57-cloud-amd64":           "6.1",
		"linux-image-6.12.48+deb12-cloud-amd64":      "6.12",
		"linux-image-6.18.15+deb13-cloud-amd64":      "6.18",
		"linux-image-7.3.4+deb14-cloud-amd64":        "newest",
		"linux-image-6.1.0-57-cloud-amd64-unsigned":  "",
		"linux-image-6.1.0-57-amd64":                 "",
		"linux-image-6.10.0-1-cloud-amd64":           "",
		"linux-image-6.1.0-57-cloud-amd64-dbg":       "",
		"xlinux-image-6.1.0-57-cloud-amd64":          "",
		"linux-image-6.18.15+deb13-cloud-amd64-rt":   "",
		"linux-image-7.3.4+deb14-cloud-arm64":        "",
		"linux-image-6.12.48+deb12-rt-cloud-amd64-x": "",
	} {
		got := ""
		for i := range matrix {
			if matrix[i].image.MatchString(name) {
				got += matrix[i].name
			}
		}
		if got != want {
			t.Errorf("%s belongs to %q, want %q", name, got, want)
		}
	}
	for release, want := range map[string]string{"6.1.0-57-cloud-amd64": "6.1", "7.3.4+deb14-cloud-amd64": "7.3", "": "."} {
		if got := seriesOf(release); got != want {
			t.Errorf("seriesOf(%q) = %q, want %q", release, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	names := func(o options) (kernels, suites []string, err error) {
		ks, ss, err := o.choose()
		for _, k := range ks {
			kernels = append(kernels, k.name)
		}
		for _, s := range ss {
			suites = append(suites, s.name)
		}
		return kernels, suites, err
	}
	if ks, ss, err := names(options{}); err != nil || len(ks) != len(matrix) || len(ss) != len(packages) {
		t.Errorf("all: %v %v %v", ks, ss, err)
	}
	ks, ss, err := names(options{short: true})
	if err != nil || !slices.Equal(ks, []string{matrix[0].name, matrix[len(matrix)-1].name}) || len(ss) == 0 {
		t.Errorf("the short form is the oldest and the newest kernel: %v %v %v", ks, ss, err)
	}
	if ks, ss, err := names(options{only: "6.12", packages: "pkg/harden,pkg/api"}); err != nil || !slices.Equal(ks, []string{"6.12"}) || len(ss) != 2 {
		t.Errorf("named: %v %v %v", ks, ss, err)
	}
	for _, o := range []options{{only: "6.13"}, {packages: "pkg/nothing"}} {
		if _, _, err := names(o); err == nil {
			t.Errorf("%+v was understood", o)
		}
	}
}

// TestSuitesExist: a package or a test of the short form that was renamed is
// not silently left out.
func TestSuitesExist(t *testing.T) {
	for _, s := range packages {
		files, err := filepath.Glob(filepath.Join("../..", s.name, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no tests: %v", s.name, err)
		}
		var source []byte
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			source = append(source, b...)
		}
		names := strings.TrimSuffix(strings.TrimPrefix(s.short, "^Test("), ")$")
		for name := range strings.SplitSeq(names, "|") {
			if s.short != "" && !bytes.Contains(source, []byte("\nfunc Test"+name+"(t ")) {
				t.Errorf("%s has no Test%s", s.name, name)
			}
		}
	}
}

func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	c := newCPIO(&b)
	c.file("init", 0o755, []byte("#!"))
	c.file("a/b/c", 0o644, []byte("12345"))
	c.file("a/d", 0o600, nil)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		name, content string
		mode          int64
	}
	var got []entry
	for raw := b.Bytes(); len(raw) > 0; {
		if string(raw[:6]) != "070701" {
			t.Fatalf("no magic number in %q", raw[:6])
		}
		field := func(n int) int64 {
			v, err := strconv.ParseInt(string(raw[6+8*n:14+8*n]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		mode, size, length := field(1), field(6), field(11)
		round := func(n int64) int64 { return (n + 3) &^ 3 }
		body := round(110 + length)
		got = append(got, entry{string(raw[110 : 109+length]), string(raw[body : body+size]), mode})
		raw = raw[body+round(size):]
	}
	want := []entry{
		{"init", "#!", 0o100755}, {"a", "", 0o40755}, {"a/b", "", 0o40755}, {"a/b/c", "12345", 0o100644},
		{"a/d", "", 0o100600}, {"TRAILER!!!", "", 0},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("archive holds\n%v, want\n%v", got, want)
	}
}

func TestLoadsModulesInOrder(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "lib/modules/6.1.0")
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	dep := "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\n" +
		"kernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\nkernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko.xz\n" +
		"kernel/drivers/virtio/virtio.ko.xz:\nkernel/drivers/virtio/virtio-pci.ko.xz: kernel/drivers/virtio/virtio.ko.xz\n"
	if err := os.WriteFile(filepath.Join(base, "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	files, err := (&kernelFiles{release: "6.1.0", tree: dir}).load()
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".ko.xz"))
	}
	if want := []string{"virtio", "virtio-pci", "virtio_blk", "crc16", "jbd2", "ext4"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("modules %v (%v), want %v", names, err, want)
	}
}

func TestListen(t *testing.T) {
	const line = `{"kind":"line","job":"j","text":"x"}` + "\n"
	for name, c := range map[string]struct {
		said    string
		told    int
		done    bool
		problem string
	}{
		"to the end":     {line + line + `{"kind":"done"}` + "\n", 2, true, ""},
		"power off":      {line, 1, false, ""},
		"half a line":    {line + `{"kind":"do`, 1, false, ""},
		"guest failed":   {line + `{"kind":"fail","text":"no disk"}` + "\n" + line, 1, false, "no disk"},
		"something else": {"Kernel panic\n", 0, false, "Kernel panic"},
	} {
		told := 0
		done, err := listen(strings.NewReader(c.said), func(plan.Message) { told++ })
		if told != c.told || done != c.done || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %d messages, done %v, %v; want %+v", name, told, done, err, c)
		}
	}
}

// marked is what a test program prints with -test.v=test2json.
func marked(lines ...string) []string {
	for i, l := range lines {
		if strings.HasPrefix(l, "=== ") || strings.HasPrefix(l, "--- ") || l == "PASS" || l == "FAIL" {
			lines[i] = "\x16" + l
		}
	}
	return lines
}

func counted(t *testing.T, end plan.Message, ended bool, lines ...string) *outcome {
	t.Helper()
	o := &outcome{job: "pkg/x", output: marked(lines...), ended: ended, end: end}
	if err := o.count(t.Context()); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCount(t *testing.T) {
	o := counted(t, plan.Message{}, true,
		"=== RUN   TestGood", "--- PASS: TestGood (0.00s)",
		"=== RUN   TestSkipped", "    x_test.go:3: some note", "    x_test.go:7: kernel lacks connect_unix", "--- SKIP: TestSkipped (0.00s)",
		"=== RUN   TestCosts", "=== ATTR  TestCosts verifier:rf_a 10 20 30", "=== ATTR  TestCosts other 1", "--- PASS: TestCosts (0.00s)", "PASS")
	if o.passed != 2 || o.failed != 0 || len(o.problems) != 0 || !o.good() {
		t.Errorf("%+v", o)
	}
	if want := map[string]string{"TestSkipped": "kernel lacks connect_unix"}; !reflect.DeepEqual(o.skips, want) {
		t.Errorf("skips %v, want %v", o.skips, want)
	}
	if want := map[string]cost{"rf_a": {20, 30}}; !reflect.DeepEqual(o.costs, want) {
		t.Errorf("costs %v, want %v", o.costs, want)
	}
	bad := counted(t, plan.Message{Code: 1}, true, "=== RUN   TestBad", "    x_test.go:3: what went wrong", "--- FAIL: TestBad (0.00s)", "FAIL")
	if bad.failed != 1 || len(bad.problems) != 1 || !strings.Contains(bad.problems[0], "what went wrong") || bad.good() {
		t.Errorf("%+v", bad)
	}
	for name, o := range map[string]*outcome{
		"the kernel died":       counted(t, plan.Message{}, false, "=== RUN   TestHalf", "    x_test.go:3: half way"),
		"killed":                counted(t, plan.Message{Code: -1, Text: "killed after 9 s"}, true, "=== RUN   TestHalf", "    x_test.go:3: half way"),
		"status without a word": counted(t, plan.Message{Code: 2}, true, "=== RUN   TestHalf", "    x_test.go:3: half way"),
	} {
		if o.failed != 1 || len(o.problems) != 1 || !strings.Contains(o.problems[0], "half way") || o.good() {
			t.Errorf("%s: %+v", name, o)
		}
	}
	wrong := &outcome{job: "pkg/x", output: marked("=== RUN   TestCosts", "=== ATTR  TestCosts verifier:rf_a many", "--- PASS: TestCosts (0.00s)"), ended: true}
	if err := wrong.count(t.Context()); err == nil {
		t.Error("a cost that is no number was read")
	}
}

func TestArchiveChoosesByVersion(t *testing.T) {
	bin := t.TempDir()
	script := func(name, body string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	script("apt-get", "printf 'https://one.example/debian-security/\\nhttps://two.example/debian/\\n'\n")
	script("apt-cache", `case "$*" in
*pkgnames*) printf '%s\n' linux-image-6.1.0-9-cloud-amd64 linux-image-6.1.0-57-cloud-amd64 linux-image-6.1.0-58-cloud-amd64-unsigned ;;
*madison*) printf ' linux-image-6.1.0-9-cloud-amd64 | 6.1.27-1 | x\n linux-image-6.1.0-57-cloud-amd64 | 6.1.192-3 | x\n' ;;
esac
`)
	a, err := openArchive(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	sources, err := os.ReadFile(a.path("sources.list"))
	if err != nil || !strings.Contains(string(sources), " https://two.example/debian bookworm main\n") || strings.Contains(string(sources), "security") {
		t.Errorf("sources %q, %v", sources, err)
	}
	if name, err := a.newest(t.Context(), matrix[0].image); err != nil || name != "linux-image-6.1.0-57-cloud-amd64" {
		t.Errorf("newest is %q, %v", name, err)
	}
	if _, err := a.newest(t.Context(), series(`9\.9`)); err == nil {
		t.Error("a kernel that nobody offers was found")
	}
	script("apt-get", "printf 'https://one.example/ubuntu/\\n'\n")
	if _, err := openArchive(t.Context(), t.TempDir()); err == nil {
		t.Error("a machine without a Debian mirror has one")
	}
	script("apt-get", "exit 100\n")
	away := (*unreachable)(nil)
	if err := a.update(t.Context()); !errors.As(err, &away) {
		t.Errorf("an archive that cannot be asked: %v", err)
	}
	if err := os.WriteFile(a.path("updated"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.update(context.Background()); err != nil {
		t.Errorf("fresh lists: %v", err)
	}
}
