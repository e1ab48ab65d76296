// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// rig is a library over two directories.
type rig struct {
	t        testing.TB
	dir, api string // the policy directory; what the library keeps
	lib      *Library
	store    *sqlite.Store

	mu      sync.Mutex
	changes []Change
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, dir: t.TempDir(), api: t.TempDir()}
	r.reopen()
	t.Cleanup(func() { _ = r.store.Close() })
	return r
}

var discard = slog.New(slog.DiscardHandler)

var byRoot = Act{Author: store.Author{Name: "root", PID: 1, Program: "ringfence"}, Action: "apply"}

func (r *rig) reopen() {
	r.t.Helper()
	if r.store != nil {
		_ = r.store.Close() // some tests have closed it
	}
	r.store = openStore(r.t, filepath.Join(r.api, "store"))
	lib, err := Open(Options{Dir: r.dir, StateDir: r.api, Store: r.store, Logger: slog.New(slog.DiscardHandler), OnChange: func(c Change) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes = append(r.changes, c)
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.lib = lib
}

func openStore(t testing.TB, dir string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: dir, Version: "1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (r *rig) write(name, text string) {
	r.t.Helper()
	tmp := filepath.Join(r.dir, ".new")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(r.dir, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(name string) {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) reload() {
	r.t.Helper()
	if err := r.lib.Reload(); err != nil {
		r.t.Fatal(err)
	}
}

func policyOf(name, effect, dest string) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:local\negress:\n  - {id: a, %s: %q}\n", name, effect, dest)
}

func providerOf(name, url string) string {
	return fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Provider\nmetadata: {name: %s}\ndialect: openai\nbaseURL: %s\ncredential: passthrough\n", name, url)
}

var who = scope.Principal{Org: "local", Team: "default", Agent: "a"}

func (r *rig) allows(host string) bool {
	return r.lib.Snapshot().View(who).Egress(host, 443).Allowed()
}

func (r *rig) want(host string, allowed bool) {
	r.t.Helper()
	if got := r.allows(host); got != allowed {
		r.t.Errorf("%s: allowed %v, want %v; problems: %v", host, got, allowed, r.lib.Problems())
	}
}

// badTexts are documents that must never come into force.
func badTexts() map[string]string {
	return map[string]string{
		"empty mapping":     "{}",
		"not yaml":          "\t\tegress: [",
		"binary":            "\x00\x01\xff\xfe",
		"unknown field":     policyOf("b", "alow", "x.example:443"),
		"unknown kind":      "apiVersion: ringfence.dev/v1\nkind: Polcy\nmetadata: {name: b}\n",
		"wrong version":     strings.Replace(policyOf("b", "allow", "x.example:443"), "v1", "v9", 1),
		"no name":           "apiVersion: ringfence.dev/v1\nkind: Policy\negress: []\n",
		"bad scope":         strings.Replace(policyOf("b", "allow", "x.example:443"), "org:local", "org:local/nonsense:1", 1),
		"allow of no port":  policyOf("b", "allow", "x.example"),
		"a provider's host": policyOf("b", "allow", "api.openai.com:443"),
		"a list":            "- a\n- b\n",
		"an alias bomb":     "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n",
		"deep nesting":      strings.Repeat("[", 20000),
		"duplicate key":     policyOf("b", "allow", "x.example:443") + "kind: Policy\n",
		"not enforced yet":  "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: b}\nscope: org:local\nguardrails:\n  - {id: m}\n",
		"second is bad":     policyOf("b", "allow", "x.example:443") + "---\nkind: Nonsense\n",
	}
}

func TestABadFileDisablesNothingElse(t *testing.T) {
	for name, text := range badTexts() {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.write("good.yaml", policyOf("good", "allow", "good.example:443"))
			r.write("changes.yaml", policyOf("changes", "allow", "kept.example:443"))
			r.reload()
			rev := r.lib.Snapshot().Revision()
			r.write("bad.yaml", text)
			r.write("changes.yaml", text) // the last good form of this one stays
			r.reload()
			r.want("good.example", true)
			r.want("kept.example", true)
			r.want("x.example", false)
			if len(r.lib.Problems()) == 0 {
				t.Error("no problem is reported")
			}
			files := map[string]bool{}
			for _, p := range r.lib.Problems() {
				files[filepath.Base(p.File)] = true
				if p.Msg == "" {
					t.Errorf("a problem says nothing: %+v", p)
				}
			}
			if !files["bad.yaml"] || !files["changes.yaml"] {
				t.Errorf("problems stand in %v", files)
			}
			last := r.changes[len(r.changes)-1]
			if len(last.Problems) == 0 || last.Snapshot.Revision() <= rev {
				t.Errorf("the change was not announced: %+v", last)
			}
			r.write("bad.yaml", policyOf("now-good", "allow", "x.example:443"))
			r.write("changes.yaml", policyOf("changes", "allow", "new.example:443"))
			r.reload()
			r.want("x.example", true)
			r.want("new.example", true)
			r.want("kept.example", false)
			if p := r.lib.Problems(); len(p) > 0 {
				t.Errorf("problems are left: %v", p)
			}
		})
	}
}

// Each file is good by itself; together they are not.
func TestFilesThatDoNotGoTogether(t *testing.T) {
	t.Run("a second provider of that name does not disable the first", func(t *testing.T) {
		r := newRig(t)
		r.write("b.yaml", providerOf("own", "https://first.example"))
		r.reload()
		r.write("a.yaml", providerOf("own", "https://second.example"))
		r.write("c.yaml", policyOf("c", "allow", "good.example:443"))
		r.reload()
		if p := r.lib.Snapshot().Providers(); len(p) != 1 || p[0].BaseURL != "https://first.example" {
			t.Errorf("providers %+v", p)
		}
		r.want("good.example", true)
		if len(r.lib.Problems()) == 0 {
			t.Error("no problem is reported")
		}
		r.remove("b.yaml")
		r.reload()
		if p := r.lib.Snapshot().Providers(); len(p) != 1 || p[0].BaseURL != "https://second.example" {
			t.Errorf("after the first went the second is not tried again: %+v", p)
		}
	})
	t.Run("a provider does not take down the policy that names its host", func(t *testing.T) {
		r := newRig(t)
		r.write("policy.yaml", policyOf("p", "allow", "llm.example:443")+"  - {id: d, deny: \"evil.example\", mandatory: true}\n")
		r.reload()
		r.write("provider.yaml", providerOf("own", "https://llm.example"))
		r.reload()
		r.want("llm.example", true)
		if p := r.lib.Snapshot().Providers(); len(p) > 0 {
			t.Error("the provider is in force")
		}
		var said bool
		for _, p := range r.lib.Problems() {
			said = said || filepath.Base(p.File) == "provider.yaml"
		}
		if !said {
			t.Errorf("the problem does not stand in the file that was changed: %v", r.lib.Problems())
		}
	})
	t.Run("an edit that clashes leaves the last good form", func(t *testing.T) {
		r := newRig(t)
		r.write("a.yaml", policyOf("one", "allow", "one.example:443"))
		r.write("b.yaml", policyOf("two", "allow", "two.example:443"))
		r.reload()
		r.write("b.yaml", policyOf("one", "allow", "three.example:443"))
		r.reload()
		r.want("one.example", true)
		r.want("two.example", true)
		r.want("three.example", false)
	})
	t.Run("the API refuses what does not go with the rest", func(t *testing.T) {
		r := newRig(t)
		r.write("a.yaml", providerOf("one", "https://one.example"))
		r.write("broken.yaml", "kind: [")
		r.reload()
		if err := r.lib.Put(byRoot, "p.yaml", providerOf("one", "https://two.example")); err == nil {
			t.Error("a second provider of that name was taken")
		}
		if docs, err := r.store.Documents(context.Background(), 0); err != nil || slices.ContainsFunc(docs, func(d store.Document) bool { return d.Owner == store.OwnerAPI }) {
			t.Errorf("what was refused is stored: %v, %v", docs, err)
		}
		if err := r.lib.Put(byRoot, "p.yaml", policyOf("ok", "allow", "ok.example:443")); err != nil {
			t.Errorf("a good document was refused because another file is broken: %v", err)
		}
		r.want("ok.example", true)
	})
}

func TestFilesThatCannotBeRead(t *testing.T) {
	r := newRig(t)
	r.write("good.yaml", policyOf("good", "allow", "good.example:443"))
	if err := os.Mkdir(filepath.Join(r.dir, "folder.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(r.dir, "fifo.yaml"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(r.dir, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("loop.yaml", filepath.Join(r.dir, "loop.yaml")); err != nil {
		t.Fatal(err)
	}
	r.write("large.yaml", policyOf("large", "allow", "large.example:443")+strings.Repeat("#", MaxFile))
	r.write("ignored.txt", "kind: [")
	r.reload()
	r.want("good.example", true)
	r.want("large.example", false)
	files := map[string]bool{}
	for _, p := range r.lib.Problems() {
		files[filepath.Base(p.File)] = true
	}
	if !files["fifo.yaml"] || !files["large.yaml"] || !files["loop.yaml"] || files["ignored.txt"] {
		t.Errorf("problems stand in %v", files)
	}
	last := r.changes[len(r.changes)-1]
	if len(last.Problems) == 0 {
		t.Error("the problems were not announced")
	}
	rev := r.lib.Snapshot().Revision()
	r.reload()
	if got := r.lib.Snapshot().Revision(); got != rev {
		t.Errorf("nothing changed, but the revision went from %d to %d", rev, got)
	}
	r.write("large.yaml", policyOf("large", "allow", "large.example:443"))
	r.reload()
	r.want("large.example", true)
}

func TestDocumentsOfTheAPISurviveARestart(t *testing.T) {
	r := newRig(t)
	if err := r.lib.Put(byRoot, "allow.yaml", policyOf("stays", "allow", "stays.example:443")); err != nil {
		t.Fatal(err)
	}
	if err := r.lib.SetMemory("grant", policyOf("grant", "allow", "grant.example:443")); err != nil {
		t.Fatal(err)
	}
	r.want("stays.example", true)
	r.want("grant.example", true)
	r.reopen()
	r.want("stays.example", true)
	r.want("grant.example", false) // a restart can only close it early
	if err := r.lib.Remove("api/allow.yaml", "unknown"); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	r.want("stays.example", false)
}

func TestDocumentsOfOneSandbox(t *testing.T) {
	r := newRig(t)
	mine := who
	mine.Sandbox = "aaaa"
	other := who
	other.Sandbox = "bbbb"
	if err := r.lib.SetSandbox("sandbox:aaaa/0", policyOf("own", "allow", "own.example:443"), mine); err != nil {
		t.Fatal(err)
	}
	if !r.lib.Snapshot().View(mine).Egress("own.example", 443).Allowed() || r.lib.Snapshot().View(other).Egress("own.example", 443).Allowed() {
		t.Error("it counts for the wrong sandbox")
	}
	for name, text := range map[string]string{
		"a scope that does not cover it": strings.Replace(policyOf("x", "allow", "x.example:443"), "org:local", "org:acme", 1),
		"a provider":                     providerOf("x", "https://x.example"),
		"nonsense":                       "kind: [",
	} {
		if err := r.lib.SetSandbox("sandbox:aaaa/1", text, mine); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	r.reload()
	if !r.lib.Snapshot().View(mine).Egress("own.example", 443).Allowed() {
		t.Error("a reload of the directories dropped it")
	}
	if err := r.lib.Remove("sandbox:aaaa/0"); err != nil {
		t.Fatal(err)
	}
	if r.lib.Snapshot().View(mine).Egress("own.example", 443).Allowed() {
		t.Error("it is still in force")
	}
}

// Whatever is written, removed and reloaded in whatever order: what is in
// force compiles, revisions grow, and a host is allowed exactly if a file whose
// last good form allows it is there.
func TestAnyOrderOfChanges(t *testing.T) {
	bad := badTexts()
	for seed := range uint64(12) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := newRig(t)
		good := map[string]string{} // file -> host of its last good form
		rev := uint64(0)
		for range 25 {
			f := fmt.Sprintf("f%d.yaml", rng.IntN(4))
			switch rng.IntN(4) {
			case 0:
				for _, text := range bad {
					r.write(f, text)
					break
				}
			case 1:
				if os.Remove(filepath.Join(r.dir, f)) == nil {
					delete(good, f)
				}
			default:
				host := fmt.Sprintf("h%d.example", rng.IntN(1000))
				r.write(f, policyOf(strings.TrimSuffix(f, ".yaml"), "allow", host+":443"))
				good[f] = host
			}
			r.reload()
			if now := r.lib.Snapshot().Revision(); now < rev {
				t.Fatalf("seed %d: revision %d after %d", seed, now, rev)
			} else {
				rev = now
			}
			want := map[string]bool{}
			for _, h := range good {
				want[h] = true
			}
			for h := range want {
				if !r.allows(h) {
					t.Fatalf("seed %d: %s is refused, problems %v", seed, h, r.lib.Problems())
				}
			}
			if n := r.lib.Snapshot().Rules(); n != len(good) {
				t.Fatalf("seed %d: %d rules in force, want %d", seed, n, len(good))
			}
		}
	}
}
