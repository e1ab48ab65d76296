// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
)

// TestARuleIsJudgedBeforeItIsAdded asks for scopes of every width.
func TestARuleIsJudgedBeforeItIsAdded(t *testing.T) {
	dir := t.TempDir()
	text := "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: org}\nscope: org:local\negress:\n  - {id: closed, deny: \"a.test\"}\n" +
		"---\napiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: one}\nscope: org:local/team:default/agent:sh\negress:\n  - {id: mine, deny: \"b.test\"}\n"
	if err := os.WriteFile(filepath.Join(dir, "p.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lib, err := documents.Open(documents.Options{Dir: dir, StateDir: t.TempDir(), Store: newStore(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{library: lib}
	for _, c := range []struct {
		target, scope string
		want          bool
	}{
		{"a.test:443", "org:local/team:default/agent:sh", false},
		{"a.test:443", "org:local/team:default", false},
		{"a.test:443", "org:local/team:d*", false},
		{"a.test:443", "org:local/team:default/agent:sh/sandbox:x", false},
		{"a.test:443", "org:other", true},
		{"b.test:443", "org:local/team:default/agent:sh/sandbox:x", false},
		{"b.test:443", "org:local/team:default", true}, // for all but one
		{"c.test:443", "org:local", true},
	} {
		doc := written(t, c.target, c.scope)
		var res api.AllowResult
		if err := d.judge(doc, doc.Policy.Egress[0], doc.Scope, &res); err != nil {
			t.Fatal(err)
		}
		if res.Effective != c.want || (res.Note == "") != c.want {
			t.Errorf("%s for %s: %+v", c.target, c.scope, res)
		}
	}
	if n := len(lib.Items()); n != 2 {
		t.Errorf("%d documents after judging, want 2", n)
	}
}

func TestPrivateAddressesAreNotForMembers(t *testing.T) {
	member := uint32(1000)
	if _, err := resolvesTo(&api.AllowRequest{ResolvesTo: []string{"10.0.0.0/8"}, OnlyOwner: &member}); err == nil {
		t.Error("a member may open them")
	}
	if list, err := resolvesTo(&api.AllowRequest{ResolvesTo: []string{"10.0.0.0/8", "10.1.2.3", "fd00::1"}}); err != nil || len(list) != 3 || list[1].String() != "10.1.2.3/32" || list[2].String() != "fd00::1/128" {
		t.Errorf("%v %v", list, err)
	}
	if _, err := resolvesTo(&api.AllowRequest{ResolvesTo: []string{"10.0.0/8"}}); err == nil {
		t.Error("what is no prefix is taken")
	}
}
