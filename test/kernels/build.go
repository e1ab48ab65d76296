// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// static links what uses cgo without a need for the guest's C library.
var static = []string{"-trimpath", "-tags", staticTags, "-ldflags", staticLink}

const staticTags, staticLink = "netgo,osusergo", "-linkmode external -extldflags -static"

// tree is where the guest finds this checkout, read-only: the tracked files,
// the product in bin/test and the test programs in bin/kernels.
const tree = "/src"

// build makes the image of the tree, with everything that the suites need.
func build(ctx context.Context, work string, suites []suite, upgrades bool) (image string, guest []byte, err error) {
	dir := filepath.Join(work, "tree")
	if err := os.MkdirAll(filepath.Join(dir, "bin/kernels"), 0o755); err != nil {
		return "", nil, err
	}
	if err := copyTree(ctx, dir); err != nil {
		return "", nil, err
	}
	bin := filepath.Join(dir, "bin/test")
	for _, p := range []struct{ to, pkg, cgo string }{
		{filepath.Join(bin, "ringfence"), "./cmd/ringfence", "0"},
		{filepath.Join(bin, "ringfence-policy"), "./cmd/ringfence-policy", "0"},
		{filepath.Join(bin, "ringfence-init"), "./cmd/ringfence-init", "0"},
		{filepath.Join(bin, "attempts"), "./test/escapes/attempts", "0"},
		{filepath.Join(bin, "load"), "./test/faults/testdata/load", "0"},
		{filepath.Join(bin, "neighbour"), "./test/escapes/neighbour", "0"},
		{filepath.Join(work, "guest"), "./test/kernels/guest", "0"},
		{filepath.Join(bin, "ringfenced"), "./cmd/ringfenced", "1"},
		{filepath.Join(dir, "bin/kernels/examine"), "./test/kernels/examine", "1"},
	} {
		if err := compile(ctx, p.cgo, "build", p.to, p.pkg); err != nil {
			return "", nil, err
		}
	}
	if upgrades {
		for version, tags := range map[string]string{"other": staticTags, "next": staticTags + ",ringfence_next"} {
			if err := compileAs(ctx, filepath.Join(bin, "ringfenced-"+version), version, tags); err != nil {
				return "", nil, err
			}
		}
	}
	for _, s := range suites {
		if err := compile(ctx, "1", "test", filepath.Join(dir, s.program()), "./"+s.name); err != nil {
			return "", nil, err
		}
	}
	if guest, err = os.ReadFile(filepath.Join(work, "guest")); err != nil {
		return "", nil, err
	}
	image = filepath.Join(work, "tree.ext4")
	return image, guest, makeImage(ctx, image, dir, "512M")
}

// compileAs builds the daemon of another version; see node.Another.
func compileAs(ctx context.Context, to, version, tags string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", tags, "-ldflags", staticLink+" -X main.version="+version, "-o", to, "./cmd/ringfenced")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOARCH=amd64", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build ringfenced %s: %w\n%s", version, err, out)
	}
	return nil
}

func compile(ctx context.Context, cgo, verb, to, pkg string) error {
	args := []string{"build", "-trimpath"}
	if cgo == "1" {
		args = append([]string{"build"}, static...)
	}
	if verb == "test" {
		args = append([]string{"test", "-c"}, args[1:]...)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", to, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOARCH=amd64", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// copyTree copies what git tracks, as it is now.
func copyTree(ctx context.Context, dir string) error {
	out, err := exec.CommandContext(ctx, "git", "ls-files", "-z").Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		info, err := os.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted, not committed yet
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, info.Mode().Perm())); err != nil {
			return err
		}
	}
	return nil
}
