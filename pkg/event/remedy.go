// SPDX-License-Identifier: Apache-2.0

package event

import (
	"regexp"
	"strings"
	"sync"
)

// safeCommand is what may stand in a command that an operator will paste:
// nothing that a shell expands, whatever a sandbox put into a host name.
var safeCommand = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^ringfence [A-Za-z0-9._:@/=,%\[\] -]+$`)
})

// LastingRemedy is a remedy for when the sandbox it is about has ended: a
// command that names no target, which means a running sandbox, gets the
// sandbox's scope and is kept. A command with anything in it that a shell
// expands becomes ""; a sentence stays as it is. scope is Event.Scope.
func LastingRemedy(remedy, scope string) string {
	if !strings.HasPrefix(remedy, "ringfence ") {
		return remedy
	}
	if strings.HasPrefix(remedy, "ringfence allow ") && !strings.Contains(remedy, " --") && scope != "" {
		principal, _, _ := strings.Cut(scope, "/sandbox:")
		remedy += " --scope " + principal + " --always"
	}
	if !safeCommand().MatchString(remedy) {
		return ""
	}
	return remedy
}
