// SPDX-License-Identifier: Apache-2.0

// Package cli is the operator's tool. Two programs have all of its commands:
// ringfence, which starts quickly, and ringfence-policy beside it, which can
// evaluate the conditions of policy documents and has the terminal view. The first
// becomes the second for the commands that need that.
package cli

import (
	"context"
	"os"
)

// Main runs the command line of this process and returns the exit code. The
// version is the linker's, "" where it gave none; view is that of top, nil in the
// program that has none.
func Main(version string, view View) int {
	return execute(context.Background(), version, view, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
