// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/policy"
)

// becameEnv tells the other program that it is meant to do the work: a copy of
// this one under its name would become itself for ever.
const becameEnv = "RINGFENCE_BECAME"

// policyProgram is beside this program.
const policyProgram = "ringfence-policy"

// toEvaluate makes this process the program that evaluates policy documents,
// unless it is that. It is called before a command has done anything, and
// returns nil or why it could not.
func toEvaluate() error {
	if policy.HasExpressions() {
		return nil
	}
	return become("evaluates policy documents")
}

// become makes this process the other program, which does what this one does
// not, with the same words. It returns why it could not.
func become(does string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(self), policyProgram)
	if os.Getenv(becameEnv) != "" {
		return fmt.Errorf("%s is not the program of that name, which %s: install it again", self, does)
	}
	err = unix.Exec(path, os.Args, append(os.Environ(), becameEnv+"=1"))
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s is missing, which %s: install it beside ringfence, in %s", policyProgram, does, filepath.Dir(self))
	}
	return fmt.Errorf("cannot run %s: %w", path, err)
}
