// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/policy"
)

// annotEvaluates marks commands that evaluate policy documents.
const annotEvaluates = "evaluates"

// policyProgram is beside this program.
const policyProgram = "ringfence-policy"

// evaluator makes this process the program that evaluates policy documents, for
// a command that does, unless it is that.
func evaluator(cmd *cobra.Command) error {
	if cmd.Annotations[annotEvaluates] == "" || policy.HasExpressions() {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(self), policyProgram)
	err = unix.Exec(path, os.Args, os.Environ())
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s is missing, which evaluates policy documents: install it beside ringfence, in %s", policyProgram, filepath.Dir(self))
	}
	return fmt.Errorf("cannot run %s: %w", path, err)
}
