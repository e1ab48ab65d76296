// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
)

// MaxOutput bounds the kept output of one detached sandbox in bytes; what
// comes after it is read and thrown away, and the file says so.
const MaxOutput = 64 << 20

// startHolder runs the process that keeps the output of a detached sandbox. It
// has the gateway's unprivileged uid and two descriptors: the pipe that the
// sandbox writes and the file. The keeper never reads a byte of it.
func (d *Daemon) startHolder(id string) (writeEnd *os.File, err error) {
	path := d.outputPath(id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("output: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(ownBinary, "hold-output", strconv.Itoa(MaxOutput))
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.Stdin, cmd.Stdout = r, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(d.gwCgroup.Fd()), Credential: &syscall.Credential{Uid: d.cfg.Gateway.UID, Gid: d.cfg.Gateway.GID}}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("output: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it ends with the last writer
	return w, nil
}

// HoldOutput is that process: it copies its input to its output up to a bound.
func HoldOutput(limit int64) error {
	n, err := io.Copy(os.Stdout, io.LimitReader(os.Stdin, limit))
	if err != nil {
		return err
	}
	if n == limit {
		if _, err := fmt.Fprintf(os.Stdout, "\n[ringfence: output above %d bytes is not kept]\n", limit); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	return err
}

// output reads kept output, waiting for more while the sandbox lives.
type output struct {
	f    *os.File
	ctx  context.Context
	done <-chan struct{} // nil: do not wait
}

func openOutput(ctx context.Context, path string, follow bool, done <-chan struct{}) (io.ReadCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, api.Errorf(api.CodeNotFound, "no output was kept: only detached sandboxes (run --detach) have a log")
	}
	if err != nil {
		return nil, err
	}
	if !follow {
		done = nil
	}
	return &output{f: f, ctx: ctx, done: done}, nil
}

func (o *output) Read(b []byte) (int, error) {
	ended := false
	for {
		n, err := o.f.Read(b)
		if n > 0 || (err != nil && !errors.Is(err, io.EOF)) {
			return n, err
		}
		if o.done == nil || ended {
			return 0, io.EOF
		}
		select {
		case <-o.ctx.Done():
			return 0, io.EOF
		case <-o.done:
			ended = true // read what came last
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (o *output) Close() error { return o.f.Close() }
