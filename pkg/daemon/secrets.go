// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Secrets are the provider keys of the node: files of mode 0600 in one
// directory. Documents name them; nobody else's path is ever opened.
type Secrets struct{ dir string }

// MaxSecret bounds one secret in bytes.
const MaxSecret = 16 << 10

var secretName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// OpenSecrets makes the directory.
func OpenSecrets(dir string) (*Secrets, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	return &Secrets{dir: dir}, os.Chmod(dir, 0o700)
}

// Put stores a secret durably.
func (s *Secrets) Put(name string, value []byte) error {
	if !secretName.MatchString(name) {
		return fmt.Errorf("secret name %q: letters, digits, '.', '_' and '-' only", name)
	}
	if len(value) == 0 || len(value) > MaxSecret {
		return fmt.Errorf("secret %s: %d bytes (1 to %d)", name, len(value), MaxSecret)
	}
	value = compact(value)
	if err := oneLine(string(value)); err != nil {
		return fmt.Errorf("secret %s: %w", name, err)
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	defer os.Remove(f.Name()) // fails after the rename: nothing is left
	_, err = f.Write(value)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// Remove deletes a secret durably; one that is not there is no error.
func (s *Secrets) Remove(name string) error {
	if !secretName.MatchString(name) {
		return fmt.Errorf("secret name %q", name)
	}
	err := os.Remove(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// compact is a JSON object in one line, as the key of a service account is not when
// it is given out. Anything else stays as it is.
func compact(value []byte) []byte {
	var out bytes.Buffer
	if text := bytes.TrimSpace(value); len(text) > 0 && text[0] == '{' && json.Compact(&out, text) == nil {
		return out.Bytes()
	}
	return value
}

// oneLine refuses what cannot stand in a request header. The error never holds
// the value.
func oneLine(key string) error {
	for _, c := range []byte(key) {
		if c < 0x20 || c > 0x7e {
			return errors.New("a key is one line of printable ASCII characters")
		}
	}
	return nil
}

// Has says whether a secret of that name can be used.
func (s *Secrets) Has(name string) bool {
	_, err := s.read(name)
	return err == nil
}

// read refuses links and files that others can read.
func (s *Secrets) read(name string) (string, error) {
	if !secretName.MatchString(name) {
		return "", fmt.Errorf("secret name %q", name)
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	own, ok := st.Sys().(*syscall.Stat_t)
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || !ok || own.Uid != uint32(os.Geteuid()) {
		return "", errors.New("must be a regular file of mode 0600 that belongs to root")
	}
	b := make([]byte, MaxSecret+1)
	n, err := f.Read(b)
	if err != nil || n > MaxSecret {
		return "", fmt.Errorf("empty, unreadable or larger than %d bytes", MaxSecret)
	}
	key := strings.TrimRight(string(compact(b[:n])), "\r\n")
	if key == "" {
		return "", errors.New("empty")
	}
	return key, oneLine(key)
}

// Sealed returns the secrets that documents name, as the gateway takes them.
// Missing ones are left out and reported: their provider refuses calls.
func (s *Secrets) Sealed(names []string) (body []byte, problems []error) {
	out := map[string]string{}
	for _, n := range names {
		v, err := s.read(n)
		if err != nil {
			problems = append(problems, fmt.Errorf("secret %s: %w", n, err))
			continue
		}
		out[n] = v
	}
	body, err := json.Marshal(out)
	if err != nil {
		return []byte("{}"), append(problems, errors.New("secrets: not representable"))
	}
	return body, problems
}
