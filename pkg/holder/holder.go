// SPDX-License-Identifier: Apache-2.0

// Package holder is the process that keeps the output of a detached sandbox. It
// lives in the binary of ringfence-init, which is small: there is one for each
// such sandbox, and what a program has at its start it has in every copy.
package holder

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"

	"github.com/ringfence/ringfence/pkg/harden"
)

// argument is how ringfence-init is told to be a holder.
const argument = "hold-output"

// Command runs a holder of at most limit bytes from the binary of
// ringfence-init. The caller adds its input, its output, the sealed system call
// filter as the first of ExtraFiles, and an unprivileged uid; init must stay open
// until it has started.
func Command(init *os.File, limit int64) *exec.Cmd {
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", init.Fd()))
	cmd.Args = []string{"ringfence-init", argument, strconv.FormatInt(limit, 10)}
	cmd.Env, cmd.Dir = []string{"GOMAXPROCS=1"}, "/"
	return cmd
}

// Main is the process; asked says whether the arguments of this one ask for it.
func Main(args []string) (err error, asked bool) {
	if len(args) != 3 || args[1] != argument {
		return nil, false
	}
	limit, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err, true
	}
	return run(limit, slog.New(slog.NewTextHandler(os.Stderr, nil)).With("process", "output")), true
}

// fdHolderFilter is the sealed system call filter of the holder.
const fdHolderFilter = 3

// run copies its input to its output up to a bound. It reads to the end whatever
// happens to the file: a pipe that nobody reads would kill the agent.
func run(limit int64, log *slog.Logger) error {
	if _, err := harden.Process(os.NewFile(fdHolderFilter, "filter"), harden.Files{}, log); err != nil {
		return fmt.Errorf("the holder of output could not confine itself: %w", err)
	}
	return hold(os.Stdin, os.Stdout, limit)
}

// hold copies at most limit bytes and throws the rest away, and what cannot be
// written. The end of out says what is missing.
func hold(in io.Reader, out io.Writer, limit int64) error {
	var kept, lost, over int64
	var why error
	buf := make([]byte, 64<<10)
	for {
		n, err := in.Read(buf)
		take := min(int64(n), limit-kept-lost)
		if take > 0 {
			w, werr := out.Write(buf[:take])
			kept, lost = kept+int64(w), lost+take-int64(w)
			if werr != nil {
				why = werr
			}
		}
		if over == 0 && int64(n) > take {
			note(out, "output above %d bytes is not kept", limit)
		}
		over += int64(n) - take
		if err == nil {
			continue
		}
		if lost > 0 {
			note(out, "%d bytes of output are missing: %v", lost, why)
		}
		if errors.Is(err, io.EOF) {
			return why
		}
		return err
	}
}

// note writes a line of ours among the output. One that cannot be written is
// lost, too.
func note(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, "\n[ringfence: "+format+"]\n", args...)
}
