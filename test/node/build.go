// SPDX-License-Identifier: Apache-2.0

package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// BuildInto compiles a program of this checkout, named by its folder, into dir
// and returns its path. It is static: a sandbox needs nothing besides.
func BuildInto(t testing.TB, dir, folder string) string {
	t.Helper()
	program := filepath.Join(dir, filepath.Base(folder))
	cmd := exec.Command("go", "build", "-o", program, "./"+folder)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", folder, err, out)
	}
	return program
}
