// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/node"
)

// thirdLock is what the daemon says of it for a sandbox.
func thirdLock(t *testing.T, n *node.Node, name string) api.Part {
	t.Helper()
	for _, p := range n.Sandbox(t, name).Parts {
		if p.Name == "bpf_lsm" {
			return p
		}
	}
	t.Fatalf("nothing is said of the third lock of %s", name)
	return api.Part{}
}

// TestThirdLock: where the kernel runs BPF as a security module, git hooks and
// guarded files cannot be made in the workspace; elsewhere they are found at the
// end. Either way no hook is left, and ps says which it is.
func TestThirdLock(t *testing.T) {
	n := node.Start(t, node.Options{})
	if r := n.CLI(t, "run", "-d", "--workspace", "none", "--name", "watched", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	part := thirdLock(t, n, "watched")
	if ps := n.CLI(t, "ps").Stdout; !strings.Contains(ps, "Third lock (BPF LSM), an extra beside the walls of FENCE: "+part.State+": ") || part.Detail == "" {
		t.Errorf("ps does not say what %+v is:\n%s", part, ps)
	}
	ws := n.Workspace(t)
	r := inside(t, n, ws, `mkdir -p a/b/.git/hooks a/b/.git/objects a/b/.git/refs && echo ref: refs/heads/m > a/b/.git/HEAD
echo x > a/b/.git/hooks/pre-commit && echo made hook
echo x > .envrc && echo made guarded
mkdir c && echo x > c/pre-commit && mv c/pre-commit a/b/.git/hooks/post-checkout && echo made moved
echo x > a/b/.git/hooks/pre-commit.sample && echo made sample
mkdir -p ~/.claude && echo {} > ~/.claude/settings.json && echo made own
git init -q repo && echo made repository`)
	for _, ours := range []string{"sample", "own", "repository"} {
		if !strings.Contains(r.Stdout, "made "+ours+"\n") {
			t.Errorf("%s was refused: %+v", ours, r)
		}
	}
	for _, theirs := range []string{"hook", "guarded", "moved"} {
		if made := strings.Contains(r.Stdout, "made "+theirs+"\n"); made == (part.State == api.Enforced) {
			t.Errorf("%s was made: %v, and the third lock is %s", theirs, made, part.State)
		}
	}
	if part.State == api.Enforced {
		e := n.WaitEvent(t, "the refusal", func(e *event.Event) bool { return e.Layer == "bpf-lsm" && e.Path == "hooks/pre-commit" })
		if e.Verdict != event.Denied || e.Kind != event.KindFile || e.Activity != "create" || e.Reason == "" || e.Remedy == "" {
			t.Errorf("event %+v", e)
		}
	} else {
		n.WaitEvent(t, "the finding", func(e *event.Event) bool {
			return e.Kind == event.KindWorkspace && strings.HasSuffix(e.Path, "hooks/pre-commit")
		})
	}
	left, err := filepath.Glob(filepath.Join(ws, "a/b/.git/hooks/*"))
	if err != nil || len(left) > 1 {
		t.Errorf("hooks that are left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(ws, "repo/.git")); err != nil {
		t.Error(err)
	}
}
