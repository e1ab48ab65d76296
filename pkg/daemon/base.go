// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// lockPatience is how long a daemon waits for the lock: a child of one that
// was killed holds it until its own exec.
const lockPatience = 2 * time.Second

// lockRun makes the run directory and keeps a second daemon out of it.
func lockRun(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for end := time.Now().Add(lockPatience); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another ringfenced uses the run directory %s: stop it, or choose another with --run-dir", dir)
		}
		return nil, fmt.Errorf("run directory: %w", err)
	}
	return f, nil
}

// Instance is the name of this daemon's cgroup: several daemons of one machine
// differ by their run directory.
func Instance(runDir string) string {
	if runDir == Default().RunDir {
		return "ringfence"
	}
	sum := sha256.Sum256([]byte(runDir))
	return "ringfence-" + hex.EncodeToString(sum[:4])
}

// cgroupBase makes the cgroup below which everything of this daemon lives,
// outside the daemon's own, and hands it the controllers there are.
func cgroupBase(runDir string) (root, base string, err error) {
	if root, err = kernel.CgroupRoot(); err != nil {
		return "", "", err
	}
	base = filepath.Join(root, Instance(runDir))
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", "", fmt.Errorf("cgroup: %w", err)
	}
	for _, dir := range []string{root, base} {
		if err := delegate(dir); err != nil {
			return "", "", err
		}
	}
	return root, base, nil
}

// delegate turns on the memory and pids controllers for the children of a
// cgroup, as far as the machine has them for cgroup v2.
func delegate(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	on, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	for _, c := range []string{"memory", "pids"} {
		if !hasWord(string(b), c) || hasWord(string(on), c) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("cgroup: delegate %s: %w", c, err)
		}
	}
	return nil
}

func hasWord(s, word string) bool {
	for w := range strings.FieldsSeq(s) {
		if w == word {
			return true
		}
	}
	return false
}

// caBundles is where distributions keep their bundle.
var caBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
}

// hostBundle reads the host's CA bundle; a host without one has none to show.
func hostBundle() ([]byte, error) {
	for _, p := range caBundles {
		b, err := os.ReadFile(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return b, err
	}
	return nil, nil
}
