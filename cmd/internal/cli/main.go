// SPDX-License-Identifier: Apache-2.0

// Package cli is the operator's tool. Two programs have all of its commands:
// ringfence, which starts quickly, and ringfence-policy beside it, which can
// evaluate the conditions of policy documents. The first becomes the second for
// the commands that need that.
package cli

import (
	"context"
	"os"
)

// Main runs the command line of this process and returns the exit code. The
// version is the linker's, "" where it gave none.
func Main(version string) int {
	return execute(context.Background(), version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
