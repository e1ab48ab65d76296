// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

const map32 = unix.MAP_32BIT

type legacyMode struct {
	name, control string
	make          func(path string) error
}

// legacyModes are the calls with a mode that only the older table has.
func legacyModes() []legacyMode {
	chmod := func(mode uintptr) func(string) error {
		return func(path string) error {
			if err := os.WriteFile(path, nil, 0o755); err != nil {
				return nothing("no file to change: %v", err)
			}
			return sys(unix.SYS_CHMOD, cstring(path), mode)
		}
	}
	return []legacyMode{
		{"chmod-raw", "sets the bit with the old chmod", chmod(0o4755)},
		{"chmod-raw-high-bits", "with garbage in the upper half of the mode", chmod(0o4755 | garbage)},
		{"open-raw", "creates it with the old open", func(path string) error {
			_, err := sysr(unix.SYS_OPEN, cstring(path), unix.O_CREAT|unix.O_WRONLY, 0o4755)
			return err
		}},
		{"creat-raw", "creates it with creat", func(path string) error {
			_, err := sysr(unix.SYS_CREAT, cstring(path), 0o4755)
			return err
		}},
		{"mknod-raw", "makes it with the old mknod", func(path string) error { return sys(unix.SYS_MKNOD, cstring(path), unix.S_IFREG|0o4755, 0) }},
	}
}
