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
	return killEach(path)
}

// killEach kills every process below a cgroup one by one. cgroup.kill signals
// the first thread of each alone (seen on 6.18), and one that has ended
// takes no signal for the others.
func killEach(path string) error {
	pids, err := cgroupProcesses(path)
	if err != nil {
		if gone(path) {
			return nil
		}
		return err
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

func cgroupPIDs(path string) ([]int, error) { return cgroupList(path, "cgroup.procs") }

// cgroupList reads the numbers in a file of a cgroup.
func cgroupList(path, file string) ([]int, error) {
	b, err := os.ReadFile(filepath.Join(path, file))
	if err != nil {
		return nil, err
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		p, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// cgroupThreads lists every thread of a cgroup and of those below it. Threads
// and not processes: one whose first thread has ended lives on in the others.
func cgroupThreads(path string) ([]int, error) { return cgroupTree(path, "cgroup.threads") }

// cgroupProcesses lists every process of a cgroup and of those below it.
func cgroupProcesses(path string) ([]int, error) { return cgroupTree(path, "cgroup.procs") }

func cgroupTree(path, file string) ([]int, error) {
	out, err := cgroupList(path, file)
	if err != nil {
		return nil, err
	}
	below, err := os.ReadFile(filepath.Join(path, "cgroup.stat"))
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(below), "nr_descendants 0\n") {
		return out, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		more, err := cgroupTree(filepath.Join(path, e.Name()), file)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue // removed meanwhile: it was empty
		}
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// populated says whether a process of the cgroup has not fully ended. A cgroup
// that is gone holds none; one that cannot be asked is an error. cgroup.procs
// leaves out a process a moment before the kernel has let go of it.
func populated(path string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(path, "cgroup.events"))
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, os.ErrNotExist) && gone(path):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("cgroup: %w", err)
	}
	return strings.Contains(string(b), "populated 1"), nil
}

// gone says that there is certainly nothing at path.
func gone(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, os.ErrNotExist)
}

// ErrProcesses says that processes of a cgroup live on after they were killed.
var ErrProcesses = errors.New("processes are still there after SIGKILL")

// endPatience is how long killed processes may take to end.
const endPatience = 10 * time.Second

// endProcesses kills every process of a cgroup until the kernel has let go of
// the last one. It gives up after patience; then processes may live.
func endProcesses(path string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		kerr := killCgroup(path)
		busy, err := populated(path)
		if err == nil && !busy {
			return nil
		}
		if pause > 4*time.Millisecond { // it did not end all
			kerr = errors.Join(kerr, killEach(path))
		}
		if time.Now().After(deadline) {
			if busy {
				err = fmt.Errorf("cgroup %s: %w", path, ErrProcesses)
			}
			return errors.Join(err, kerr)
		}
		time.Sleep(pause)
	}
}

// EmptyCgroup waits until the processes of a cgroup have ended, and kills those
// that are left after the grace.
func EmptyCgroup(path string, grace time.Duration) error {
	for deadline := time.Now().Add(grace); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if busy, err := populated(path); err == nil && !busy {
			return nil
		}
	}
	return endProcesses(path, endPatience)
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
