// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/confine"
)

func signalFrame(s syscall.Signal) confine.Frame {
	return confine.Frame{Type: confine.FrameSignal, Status: int32(s)}
}

// makeCgroup makes the cgroup of one sandbox and returns its directory and id.
func makeCgroup(path string) (*os.File, uint64, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, 0, fmt.Errorf("cgroup: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("cgroup: %w", err)
	}
	id, err := cgroupID(path)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, id, nil
}

// cgroupID is the inode of the cgroup's directory, which is its 64-bit id.
func cgroupID(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("cgroup %s: %w", path, err)
	}
	return st.Ino, nil
}

// killCgroup kills every process below a cgroup (cgroup.kill, Linux 5.14; one
// by one before that). A cgroup that is gone is no error.
func killCgroup(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if err == nil || errors.Is(err, os.ErrNotExist) && !exists(path) {
		return nil
	}
	pids, perr := cgroupPIDs(path)
	if perr != nil {
		return perr
	}
	for _, p := range pids {
		if kerr := syscall.Kill(p, syscall.SIGKILL); kerr != nil && !errors.Is(kerr, syscall.ESRCH) {
			return fmt.Errorf("kill %d: %w", p, kerr)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func cgroupPIDs(path string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		p, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

// populated says whether a process of the cgroup has not fully ended; false
// when there is no cgroup. cgroup.procs leaves out a process a moment before
// the kernel has let go of it.
func populated(path string) bool {
	b, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	return err == nil && strings.Contains(string(b), "populated 1")
}

// EmptyCgroup waits until the processes of a cgroup have ended, and kills those
// that are left after the grace.
func EmptyCgroup(path string, grace time.Duration) error {
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if !populated(path) {
			return nil
		}
	}
	err := killCgroup(path)
	waitEmpty(path)
	return err
}

// RemoveCgroup kills what is left and removes the cgroup and those made below
// it. The kernel needs a moment to let go of the last process.
func RemoveCgroup(path string) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		if err := killCgroup(path); err != nil {
			return err
		}
		err := removeTree(path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return syscall.Rmdir(path)
}

// limit writes a cgroup limit; have is false when the controller is absent.
func limit(cgroup, file string, value int64) (have bool, err error) {
	p := filepath.Join(cgroup, file)
	if !exists(p) {
		return false, nil
	}
	if err := os.WriteFile(p, []byte(strconv.FormatInt(value, 10)), 0); err != nil {
		return true, fmt.Errorf("%s: %w", file, err)
	}
	return true, nil
}
