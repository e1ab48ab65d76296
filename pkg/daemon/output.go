// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/holder"
	"github.com/ringfence/ringfence/pkg/sandbox"
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
	d.boundOutput(path)
	cmd := holder.Command(d.initFile, MaxOutput)
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = r, file, []*os.File{d.filter}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(d.gwCgroup.Fd()), Credential: &syscall.Credential{Uid: d.cfg.Gateway.UID, Gid: d.cfg.Gateway.GID}}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, fmt.Errorf("output: %w", err)
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // its pidfd: Await has one of its own
	go func() {               // it ends with the last writer
		if code := (sandbox.Process{PID: pid}).Await(); code != 0 {
			d.logger.Error("output was not kept to its end", "sandbox", id, "status", code)
		}
	}()
	return w, nil
}

// MaxOutputs bounds the kept output of all ended sandboxes together in bytes.
const MaxOutputs = 1 << 30

// boundOutput removes the oldest kept output of ended sandboxes when all of it
// is above MaxOutputs, before another begins.
func (d *Daemon) boundOutput(next string) {
	for _, p := range oldestOver(filepath.Dir(next), MaxOutputs-MaxOutput, func(id string) bool {
		_, living := d.sandboxes.ByID(id)
		return !living && d.outputPath(id) != next
	}) {
		d.removeOutput(p)
	}
}

// oldestOver returns what to remove from dir, oldest first, until its files
// hold at most limit bytes. Those that may not go count, too.
func oldestOver(dir string, limit int64, mayGo func(id string) bool) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // then nothing was kept
	}
	var total int64
	var files []os.FileInfo
	for _, e := range entries {
		st, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		total += st.Size()
		files = append(files, st)
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	var out []string
	for _, f := range files {
		id, isLog := strings.CutSuffix(f.Name(), ".log")
		if total > limit && isLog && mayGo(id) {
			out = append(out, filepath.Join(dir, f.Name()))
			total -= f.Size()
		}
	}
	return out
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
