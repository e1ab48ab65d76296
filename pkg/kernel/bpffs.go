// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// bpffsSource marks a bpffs that we mounted, so that only ours is unmounted.
const bpffsSource = "ringfence"

// ensureBPFFS makes dir a place that can hold pins: a directory within a
// bpffs, or the root of one mounted there now.
func ensureBPFFS(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w", err)
	}
	ok, err := onBPFFS(dir)
	if err != nil || ok {
		return err
	}
	if err := unix.Mount(bpffsSource, dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount bpffs on %s: %w", dir, err)
	}
	return nil
}

func onBPFFS(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("stat pin directory: %w", err)
	}
	return fs.Type == unix.BPF_FS_MAGIC, nil
}

// releaseBPFFS unmounts dir if ensureBPFFS mounted it and nothing of anybody
// is left inside.
func releaseBPFFS(dir string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close()
	mounts, err := parseMountinfo(f)
	if err != nil {
		return err
	}
	ours := false
	for _, m := range mounts {
		if m.target == abs {
			ours = m.fstype == "bpf" && m.source == bpffsSource
		}
	}
	if !ours {
		return nil
	}
	left, err := os.ReadDir(abs)
	if err != nil {
		return err
	}
	for _, e := range left {
		// The kernel itself may put maps.debug and progs.debug into a new
		// bpffs (CONFIG_BPF_PRELOAD, 5.10); no pin can have a dot.
		if !strings.Contains(e.Name(), ".") {
			return nil
		}
	}
	if err := unix.Unmount(abs, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("unmount bpffs: %w", err)
	}
	return nil
}
