// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/policy"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// launcher is a daemon with a library, that takes documents of sandboxes.
func launcher(t *testing.T) (d *Daemon, add func(id string, owner uint32, texts ...string) error) {
	t.Helper()
	lib, err := documents.Open(documents.Options{Dir: t.TempDir(), StateDir: t.TempDir(), Store: newStore(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	d = &Daemon{library: lib, logger: slog.New(slog.DiscardHandler)}
	d.cfg.RunDir = t.TempDir()
	add = func(id string, owner uint32, texts ...string) error {
		if err := os.MkdirAll(filepath.Join(d.cfg.RunDir, "sandboxes", id), 0o755); err != nil {
			t.Fatal(err)
		}
		var docs []api.Document
		for i, text := range texts {
			docs = append(docs, api.Document{File: fmt.Sprintf("f%d.yaml", i), Text: text})
		}
		p := scope.Principal{Org: "local", Team: "default", Agent: "a", Sandbox: id}
		_, err := d.addSandboxDocuments(id, owner, p, docs)
		return err
	}
	return d, add
}

// ownText is a document with rules, some of them with an expression.
func ownText(name string, rules, expressions int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: %s}\nscope: org:local\negress:\n", name)
	for i := range rules {
		when := ""
		if i < expressions {
			when = ", when: {expression: \"method == 'GET'\"}"
		}
		fmt.Fprintf(&b, "  - {id: r%d, allow: \"h%d.%s.example:443\"%s}\n", i, i, name, when)
	}
	return b.String()
}

func tooMuch(t *testing.T, err error, says string) {
	t.Helper()
	var le *sandbox.LaunchError
	if !errors.As(err, &le) || le.Code != 125 || le.Step != "policy" || le.Remedy == "" || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, want %q", err, says)
	}
}

// What one launch brings is bounded: in documents, bytes, rules and expressions.
func TestALaunchBringsSoMuch(t *testing.T) {
	d, add := launcher(t)
	q := launchQuota()
	var docs []string
	for i := range q.documents + 1 {
		docs = append(docs, ownText(fmt.Sprint("d", i), 1, 0))
	}
	before := d.library.Snapshot().Rules()
	tooMuch(t, add("a", 1000, docs...), fmt.Sprintf("%d documents, and %d are the limit", q.documents+1, q.documents))
	tooMuch(t, add("a", 1000, strings.Join(docs, "---\n")), fmt.Sprintf("%d documents, and", q.documents+1))
	tooMuch(t, add("a", 1000, docs[0], strings.Join(docs[1:], "---\n")), fmt.Sprintf("%d documents, and", q.documents+1))
	tooMuch(t, add("a", 1000, ownText("rules", q.rules+1, 0)), fmt.Sprintf("%d rules, and", q.rules+1))
	tooMuch(t, add("a", 1000, ownText("one", q.rules-10, 0), ownText("two", 20, 0)), fmt.Sprintf("%d rules, and", q.rules+10))
	tooMuch(t, add("a", 1000, ownText("e", q.expressions+1, q.expressions+1)), fmt.Sprintf("%d rules with an expression", q.expressions+1))
	tooMuch(t, add("a", 1000, strings.Repeat("#", q.bytes/2), strings.Repeat("#", q.bytes/2+1)), "bytes of documents")
	if n := d.library.Snapshot().Rules(); n != before {
		t.Errorf("%d rules came into force", n-before)
	}
	if err := add("a", 1000, docs[:q.documents]...); err != nil {
		t.Error(err)
	}
	if err := add("in one file", 1000, strings.Join(docs[:q.documents], "---\n")); err != nil {
		t.Error(err)
	}
	if err := add("b", 1000, ownText("e", 300, q.expressions)); err != nil {
		t.Error(err)
	}
	if err := add("c", 0, ownText("rules", q.rules+1, 0)); err != nil {
		t.Errorf("root: %v", err)
	}
}

// Of all sandboxes of one launcher too documents are counted, in however few files.
func TestALauncherHasSoManyDocuments(t *testing.T) {
	_, add := launcher(t)
	each, all := launchQuota().documents, launcherQuota().documents
	var docs []string
	for i := range each {
		docs = append(docs, ownText(fmt.Sprint("d", i), 1, 0))
	}
	text := strings.Join(docs, "---\n")
	for i := range all / each {
		if err := add(fmt.Sprint("s", i), 1000, text); err != nil {
			t.Fatal(i, err)
		}
	}
	tooMuch(t, add("more", 1000, ownText("one", 1, 0)), fmt.Sprintf("%d documents, and %d are the limit", all+1, all))
}

// What all sandboxes of one launcher have is bounded, however many it launches at
// once; another has its own, and what ends makes room.
func TestALauncherHasSoMuch(t *testing.T) {
	d, add := launcher(t)
	each, all := launchQuota().rules, launcherQuota().rules
	fit := all / each
	var wg sync.WaitGroup
	errs := make([]error, fit+2)
	for i := range errs {
		wg.Go(func() { errs[i] = add(fmt.Sprint("s", i), 1000, ownText("p", each, 0)) })
	}
	wg.Wait()
	failed, ended := 0, ""
	for i, err := range errs {
		if err != nil {
			failed++
			tooMuch(t, err, "all sandboxes of the user 1000 together")
		} else {
			ended = fmt.Sprint("s", i)
		}
	}
	if failed != 2 {
		t.Errorf("%d of %d launches were refused", failed, len(errs))
	}
	if err := add("other", 1001, ownText("p", each, 0)); err != nil {
		t.Errorf("another launcher: %v", err)
	}
	if err := add("bare", 1000); err != nil {
		t.Errorf("without documents: %v", err)
	}
	rule := &policy.Document{Name: "allow-x", Raw: []byte(ownText("allow-x", 1, 0))}
	full := &sandbox.Sandbox{Record: sandbox.Record{ID: ended, Owner: 1000}}
	if err := d.sandboxFits(asAuthor, full, rule); err == nil || !strings.Contains(err.Error(), "all sandboxes of the user 1000 together") {
		t.Errorf("allow: %v", err)
	}
	if err := d.sandboxFits(asRoot, full, rule); err != nil {
		t.Errorf("allow by root: %v", err)
	}
	d.dropSandboxDocuments(ended)
	if err := d.sandboxFits(asAuthor, full, rule); err != nil {
		t.Errorf("allow with room: %v", err)
	}
	if err := add("next", 1000, ownText("p", each-1, 0)); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	tooMuch(t, add("last", 1000, ownText("p", 2, 0)), fmt.Sprintf("%d rules", all+1))

	// A restarted daemon counts what it finds, and takes it though it were too much.
	again, _ := launcher(t)
	again.cfg.RunDir = d.cfg.RunDir
	for _, id := range []string{"next", "other"} {
		lo := sandbox.Leftover{Record: sandbox.Record{ID: id, Owner: 1000, Scope: "org:local/team:default/agent:a/sandbox:" + id}}
		if err := again.restoreDocuments(lo); err != nil {
			t.Error(err)
		}
	}
	if err := again.ownFits(1000, []storedDocument{{Name: "n", Text: ownText("p", each, 0)}}); err != nil {
		t.Error(err)
	}
	var q ownQuota
	for _, it := range again.library.Items() {
		if of, ok := again.own.of(it.File); ok && of == 1000 && it.Kind == policy.KindPolicy {
			q.count(it.Policy)
		}
	}
	if q.rules != 2*each-1 {
		t.Errorf("%d rules are counted after a restart", q.rules)
	}
}

// Reading documents takes as long as their author likes: it does not hold up whose
// turn it is to change something.
func TestDocumentsAreReadBeforeTheLock(t *testing.T) {
	b := authors(t)
	apply := func(text string) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := b.ApplyPolicy(context.Background(), asAuthor, &api.ApplyRequest{Documents: []api.Document{{File: "a.yaml", Text: text}}})
			done <- err
		}()
		return done
	}
	b.d.applying.Lock()
	good := apply(policyFor("good", "eng", 0)) // it waits
	select {
	case err := <-apply(strings.Replace(policyFor("bad", "eng", 0), "allow", "alow", 1)):
		if err == nil || !strings.Contains(err.Error(), "alow") {
			t.Errorf("%v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a document with a mistake waits for its turn")
	}
	select {
	case err := <-good:
		t.Errorf("another change went in between: %v", err)
	default:
	}
	b.d.applying.Unlock()
	if err := <-good; err != nil {
		t.Error(err)
	}
}
