// SPDX-License-Identifier: Apache-2.0

package profiles_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/profiles"
)

func TestShippedProfilesParse(t *testing.T) {
	want := []string{"coding", "default", "strict"}
	if got := profiles.Names(); !slices.Equal(got, want) {
		t.Fatalf("Names() = %v, want %v", got, want)
	}
	for _, name := range want {
		p := load(t, name)
		if p.Name != name {
			t.Errorf("%s: metadata.name is %q", name, p.Name)
		}
		if p.Resources.Rlimits["core"] != 0 {
			t.Errorf("%s: core dumps are on", name)
		}
		if p.Env.Set["OPENAI_API_KEY"] != "ringfence-placeholder" || p.Env.Set["ANTHROPIC_API_KEY"] != "ringfence-placeholder" {
			t.Errorf("%s: provider keys are not placeholders: %v", name, p.Env.Set)
		}
		for _, secret := range []string{"OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "HOME", "LD_PRELOAD"} {
			if p.Env.Passes(secret) {
				t.Errorf("%s passes %s", name, secret)
			}
		}
		if !p.Env.Passes("TERM") || !p.Env.Passes("LC_ALL") {
			t.Errorf("%s does not pass TERM and LC_*", name)
		}
	}
}

func TestWhatTheProfilesPromise(t *testing.T) {
	coding, def, strict := load(t, "coding"), load(t, "default"), load(t, "strict")
	if coding.Workspace != policy.WorkspaceRW || !coding.Explain || !coding.Git.Protect || !coding.Terminal {
		t.Errorf("coding: %+v", coding)
	}
	if def.Explain {
		t.Error("default explains: only coding does")
	}
	if strict.Seccomp.Memfd || strict.UnixSockets || strict.Workspace == policy.WorkspaceRW || len(strict.Optional) != 0 {
		t.Errorf("strict: %+v", strict)
	}
}

func TestUnknownProfileIsNamed(t *testing.T) {
	if _, _, err := profiles.Read("../default"); err == nil || !strings.Contains(err.Error(), "coding, default, strict") {
		t.Errorf("err = %v", err)
	}
}

func load(t *testing.T, name string) *policy.Profile {
	t.Helper()
	file, data, err := profiles.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	docs, problems := policy.Parse(file, data)
	if len(problems) > 0 {
		t.Fatal(policy.Problems(problems))
	}
	if len(docs) != 1 || docs[0].Profile == nil {
		t.Fatalf("%s: %d documents", file, len(docs))
	}
	return docs[0].Profile
}
