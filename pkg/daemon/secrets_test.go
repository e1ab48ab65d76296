// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const key = "sk-secret-value-0123456789"

func TestSecretsAreStoredForRootAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "secrets")
	if err := os.Mkdir(dir, 0o755); err != nil { // too open already
		t.Fatal(err)
	}
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again: replaced
		if err := s.Put("openai", []byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "openai"): 0o600} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
	if e, err := os.ReadDir(dir); err != nil || len(e) != 1 {
		t.Errorf("left behind: %v, %v", e, err)
	}
	body, problems := s.Sealed([]string{"openai"})
	var got map[string]string
	if err := json.Unmarshal(body, &got); err != nil || got["openai"] != key || len(problems) > 0 {
		t.Errorf("%s, %v", body, problems)
	}
}

func TestRemovedSecretsAreGone(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("openai", []byte(key)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"openai", "openai", "never-there"} {
		if err := s.Remove(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s.Has("openai") {
		t.Error("it is still there")
	}
	outside := filepath.Join(filepath.Dir(dir), "outside")
	if err := os.WriteFile(outside, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "..", "../outside", outside} {
		if err := s.Remove(name); err == nil {
			t.Errorf("%q was taken for a name", name)
		}
	}
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
}

func TestSecretsThatAreNotStored(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, value string }{
		{"", key}, {".", key}, {"..", key}, {"../x", key}, {"a/b", key}, {".hidden", key}, {"a\x00b", key}, {"a b", key}, {strings.Repeat("a", 101), key},
		{"empty", ""}, {"lines", key + "\nX-Evil: 1"}, {"nul", key + "\x00"}, {"return", key + "\r"}, {"binary", key + "\xff"}, {"long", strings.Repeat("k", MaxSecret+1)},
	} {
		err := s.Put(c.name, []byte(c.value))
		if err == nil {
			t.Errorf("%q with %d bytes was stored", c.name, len(c.value))
			continue
		}
		if strings.Contains(err.Error(), key) {
			t.Errorf("the error tells the value: %v", err)
		}
	}
	if e, err := os.ReadDir(dir); err != nil || len(e) != 0 {
		t.Errorf("left behind: %v, %v", e, err)
	}
}

func TestSecretsThatAreNotUsed(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	write(in("good"), key+"\n", 0o600) // control: an editor's newline
	write(in("group"), key, 0o640)
	write(in("world"), key, 0o604)
	write(in("empty"), "", 0o600)
	write(in("newlines"), "\n\n", 0o600)
	write(in("two"), key+"\nX-Evil: 1\n", 0o600)
	write(in("long"), strings.Repeat("k", MaxSecret+2), 0o600)
	write(filepath.Join(elsewhere, "target"), key, 0o600)
	if err := os.Symlink(filepath.Join(elsewhere, "target"), in("link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(in("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(in("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	bad := []string{"group", "world", "empty", "newlines", "two", "long", "link", "fifo", "folder", "missing", "../target"}
	if os.Geteuid() == 0 {
		write(in("stranger"), key, 0o600)
		if err := os.Chown(in("stranger"), 65534, 65534); err != nil {
			t.Fatal(err)
		}
		bad = append(bad, "stranger")
	}
	body, problems := s.Sealed(append([]string{"good"}, bad...))
	var got map[string]string
	if err := json.Unmarshal(body, &got); err != nil || len(got) != 1 || got["good"] != key {
		t.Errorf("handed to the gateway: %d secrets, good %v", len(got), got["good"] == key)
	}
	if len(problems) != len(bad) {
		t.Errorf("%d problems for %d bad secrets: %v", len(problems), len(bad), problems)
	}
	for _, n := range bad {
		if s.Has(n) {
			t.Errorf("%s counts as there", n)
		}
	}
	for _, p := range problems {
		if strings.Contains(p.Error(), key) {
			t.Errorf("a problem tells the value: %v", p)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(text, key) {
		t.Errorf("printing the store prints a value: %s", text)
	}
}

// TestSecretsThatAreJSONAreOneLine: the key of a service account is given out in many.
func TestSecretsThatAreJSONAreOneLine(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	const many, one = "{\n  \"type\": \"service_account\",\n  \"private_key\": \"-----BEGIN\\nx y\\n\"\n}\n", `{"type":"service_account","private_key":"-----BEGIN\nx y\n"}`
	if err := s.Put("vertex", []byte(many)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "by-hand"), []byte(many), 0o600); err != nil {
		t.Fatal(err)
	}
	body, problems := s.Sealed([]string{"vertex", "by-hand"})
	var got map[string]string
	if err := json.Unmarshal(body, &got); err != nil || got["vertex"] != one || got["by-hand"] != one || len(problems) > 0 {
		t.Errorf("%s, %v", body, problems)
	}
	for _, bad := range []string{"{\n\"a\":1", "[\n1]", "{\"a\":\n\"\u00e9\"}"} {
		if err := s.Put("bad", []byte(bad)); err == nil {
			t.Errorf("%q is stored", bad)
		}
	}
}
