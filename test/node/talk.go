// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"testing"
)

// Talk is a conversation with a program in a sandbox that is told what to do
// and answers, a line each.
type Talk struct {
	Lines <-chan string // what it says; closed at its end

	t  testing.TB
	in io.Writer
}

// Talk starts `ringfence run` with the arguments in a directory. The program's
// input ends with the test, which then waits for it.
func (n *Node) Talk(t testing.TB, dir string, args ...string) *Talk {
	t.Helper()
	cmd := n.Command(t.Context(), append([]string{"run"}, args...)...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			lines <- sc.Text()
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		for range lines { // to its end
		}
		_ = cmd.Wait()
	})
	return &Talk{Lines: lines, t: t, in: in}
}

// Tell gives it a line.
func (k *Talk) Tell(line string) {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.in, line); err != nil {
		k.t.Fatal(err)
	}
}
