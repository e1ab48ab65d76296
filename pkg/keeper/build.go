// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"github.com/ringfence/ringfence/pkg/sandbox"
)

// executes says whether a process runs the very program that stands at path, by
// what the kernel shows of it: /proc/PID/exe leads to the file that was
// executed, also when its name is gone, and only CAP_SYS_RESOURCE or a namespace
// of its own lets a process change that (PR_SET_MM). A process says nothing of
// itself here.
func executes(p sandbox.Process, path string) (bool, error) {
	its, err := os.Open(fmt.Sprintf("/proc/%d/exe", p.PID))
	if err != nil {
		return false, err
	}
	defer its.Close()
	if !p.Alive() { // the number may have been another's when the link was followed
		return false, fmt.Errorf("process %d has ended", p.PID)
	}
	ours, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer ours.Close()
	return sameContent(its, ours)
}

// sameContent compares two files; one and the same need not be read.
func sameContent(a, b *os.File) (bool, error) {
	ai, err := a.Stat()
	if err != nil {
		return false, err
	}
	bi, err := b.Stat()
	if err != nil {
		return false, err
	}
	if os.SameFile(ai, bi) {
		return true, nil
	}
	if ai.Size() != bi.Size() {
		return false, nil
	}
	as, err := digest(a)
	if err != nil {
		return false, err
	}
	bs, err := digest(b)
	return err == nil && bytes.Equal(as, bs), err
}

func digest(f *os.File) ([]byte, error) {
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return h.Sum(nil), nil
}
