// SPDX-License-Identifier: Apache-2.0

// Package env is what tests ask of the place they run in. Beside a checkout
// with Go that is nothing; in a guest of test/kernels the tree lies elsewhere,
// the programs are built, and the processor is emulated.
package env

import (
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Tree is the top of the checkout if it is not where the sources say, else "".
func Tree() string { return os.Getenv("RINGFENCE_TEST_TREE") }

// Built is the path of a program that was built beforehand, as that of
// ./cmd/NAME or of the attempts; "" where tests build it.
func Built(name string) string {
	if Tree() == "" {
		return ""
	}
	return filepath.Join(Tree(), "bin", "test", name)
}

// Wait is how long to wait at most for what takes less than d on an ordinary
// machine: RINGFENCE_TEST_SLOW times as long.
func Wait(d time.Duration) time.Duration {
	if n, err := strconv.Atoi(os.Getenv("RINGFENCE_TEST_SLOW")); err == nil && n > 1 {
		return d * time.Duration(n)
	}
	return d
}
