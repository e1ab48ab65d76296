// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/pkg/scope"
)

// usageError marks mistakes in flags and arguments.
type usageError struct{ error }

// args wraps a check of positional arguments so that its errors are usage
// errors in our own words.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, list []string) error {
		err := check(cmd, list)
		switch {
		case err == nil:
			return nil
		case strings.HasPrefix(err.Error(), "unknown command") && !cmd.HasSubCommands(): // what cobra.NoArgs says
			err = fmt.Errorf("`%s` takes no arguments, and %q is one", cmd.CommandPath(), list[0])
		case !strings.HasPrefix(err.Error(), "unknown command"):
			err = fmt.Errorf("write it as `%s`%s", cmd.UseLine(), example(cmd))
		}
		return &usageError{err}
	}
}

// example is the first one of a command's help.
func example(cmd *cobra.Command) string {
	line, _, _ := strings.Cut(cmd.Example, "\n")
	if line = strings.TrimSpace(line); line == "" {
		return ""
	}
	return ", for example: " + line
}

// flagGroup is what cobra says of flags that exclude each other.
var flagGroup = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^if any flags in the group \[(.+)\] are set none of the others can be; \[(.+)\] were all set$`)
})

// ownWords says in a sentence what cobra says of flags that exclude each other.
func ownWords(cmd *cobra.Command, msg string) string {
	if group, required := strings.CutPrefix(msg, "at least one of the flags in the group ["); required {
		group, _, _ = strings.Cut(group, "]")
		return "name one of --" + strings.Join(strings.Fields(group), ", --") + example(cmd)
	}
	m := flagGroup().FindStringSubmatch(msg)
	if m == nil {
		return msg
	}
	flags := func(s, last string) string {
		names := strings.Fields(s)
		for i := range names {
			names[i] = "--" + names[i]
		}
		n := len(names) - 1
		return strings.Join(names[:n], ", ") + last + names[n]
	}
	return "choose one of " + flags(m[1], " and ") + ": " + flags(m[2], " and ") + " do not go together" + example(cmd)
}

// scopeError shows what a scope looks like, with what is wrong with this one.
func scopeError(text string, err error) error {
	why := err.Error()
	var syntax *scope.SyntaxError
	if errors.As(err, &syntax) {
		why = syntax.Msg
	}
	return usagef("the scope %q: %s; one is for example org:local/team:default/agent:curl", text, why)
}
