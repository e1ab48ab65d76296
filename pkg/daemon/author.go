// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
)

// act is what the history says of a caller: the uid that the kernel told, the name
// that it has on this machine now, and what the program calls itself (a process
// can call itself anything). It changes documents of the scopes in.
func (d *Daemon) act(c *api.Caller, action, comment string, in ...scope.Selector) documents.Act {
	a := store.Author{Name: d.people.spell(c.UID), UID: int64(c.UID), PID: c.PID}
	if b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.PID), "comm")); err == nil {
		a.Program = strings.ToValidUTF8(strings.TrimSpace(string(b)), "?")
	}
	a.Grants = grantsFor((&backend{d}).rightsNow(c).Authors(), in)
	return documents.Act{Author: a, Action: action, Comment: comment}
}

// actor is who did it in an event; "" is whoever may write the directory.
func actor(a documents.Act) string {
	if a == (documents.Act{}) || a.Author.UID < 0 {
		return ""
	}
	return a.Author.Name
}
