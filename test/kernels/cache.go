// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// cache keeps packages and images between runs.
type cache struct {
	dir  string
	lock *os.File
}

// openCache waits until no other run changes it.
func openCache() (*cache, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	c := &cache{dir: filepath.Join(base, "ringfence-kernels")}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	if c.lock, err = os.OpenFile(c.path("lock"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return c, nil
	}
	fmt.Println("waiting for another run to prepare kernels")
	if err := syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", c.dir, err)
	}
	return c, nil
}

func (c *cache) path(name string) string { return filepath.Join(c.dir, name) }

// forget removes what another image replaces.
func (c *cache) forget(pattern string) {
	old, _ := filepath.Glob(c.path(pattern)) // the pattern is a constant
	for _, f := range old {
		_ = os.RemoveAll(f) // it is only space
	}
}

func (c *cache) close() { c.lock.Close() }
