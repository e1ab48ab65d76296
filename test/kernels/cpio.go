// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"path"
)

// cpio writes an initial file system in the kernel's "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst). Everything in
// it belongs to root, whoever writes it.
type cpio struct {
	w   io.Writer
	ino int
	dir map[string]bool
	err error
}

func newCPIO(w io.Writer) *cpio { return &cpio{w: w, dir: map[string]bool{".": true}} }

// file adds a file and the directories it needs.
func (c *cpio) file(name string, mode os.FileMode, content []byte) {
	c.parents(name)
	c.entry(name, 0o100000|uint32(mode.Perm()), content)
}

func (c *cpio) parents(name string) {
	dir := path.Dir(name)
	if c.dir[dir] {
		return
	}
	c.parents(dir)
	c.dir[dir] = true
	c.entry(dir, 0o040755, nil)
}

// close ends the archive and returns the first error.
func (c *cpio) close() error {
	c.entry("TRAILER!!!", 0, nil)
	return c.err
}

func (c *cpio) entry(name string, mode uint32, content []byte) {
	c.ino++
	const links, magic = 1, "070701"
	header := magic
	for _, n := range []int{c.ino, int(mode), 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08x", n)
	}
	c.write(pad([]byte(header + name + "\x00")))
	c.write(pad(content))
}

// pad fills up to a multiple of four bytes.
func pad(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

func (c *cpio) write(b []byte) {
	if c.err == nil {
		_, c.err = c.w.Write(b)
	}
}
