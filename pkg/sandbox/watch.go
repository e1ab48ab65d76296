// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"slices"
	"strings"

	"github.com/ringfence/ringfence/pkg/confine"
)

// watch says whose absence is to be recorded: not what programs look for all
// day in the places that belong to the sandbox, but whatever touches a guarded
// path of its workspace.
func (l *launch) watch(guards []confine.Bind) {
	w := map[string]bool{confine.Home + "/": false}
	if at := l.r.WorkspaceAt; at != "" {
		w[strings.TrimSuffix(at, "/")+"/"] = false
	}
	f := &l.r.Profile.Files
	for _, e := range slices.Concat(f.Read, f.Exec, f.Write) {
		w[e.Path+"/"] = false
	}
	for _, g := range confine.DefaultGuarded() {
		if rest, ok := strings.CutPrefix(g, "~/"); ok { // not there, and looked for by who wants it
			w[confine.Home+"/"+rest] = true
		}
	}
	for _, g := range guards {
		if g.ReadOnly {
			w[g.Target] = true
		}
	}
	l.s.Record.Watch = w
}
