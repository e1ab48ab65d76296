// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

// liveEvents stands for the event log of the node where one is named; ./live is
// a file.
const liveEvents = "live"

// maxEventLine bounds a record of a file.
const maxEventLine = 1 << 20

// reader takes the records of an event log, and counts one of which a copy holds
// only the beginning.
type reader interface {
	Add(ev *event.Event)
	Cut()
}

// pastEvents reads an event log: the node's as far as the caller may see it, a
// file of JSON lines, the directory of a log, or standard input ("-"). It ends
// with the first line that is no record; the last line may be a part of one.
func (a *app) pastEvents(ctx context.Context, from string, q api.EventQuery, to reader) error {
	n := 0
	line := func(b []byte) error {
		n++
		ev, err := event.ParseOCSF(b)
		if err != nil {
			return fmt.Errorf("%s: record %d: %w", from, n, err)
		}
		if q.Sandbox != "" && from != liveEvents && ev.Sandbox != q.Sandbox || ev.Time.Before(q.Since) {
			return nil
		}
		to.Add(&ev)
		return nil
	}
	if from == liveEvents {
		return a.client().Events(ctx, q, line)
	}
	if from == "-" {
		return eachLine(a.in, line, to.Cut)
	}
	files := []string{from}
	if st, err := os.Stat(from); err == nil && st.IsDir() {
		if files, err = filepath.Glob(filepath.Join(from, "*.jsonl")); err != nil || len(files) == 0 {
			return fmt.Errorf("%s holds no *.jsonl of an event log", from)
		}
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = eachLine(f, line, to.Cut)
		_ = f.Close() // only read
		if err != nil {
			return err
		}
	}
	return nil
}

// eachLine hands lines to do. The last is cut when it has no end and is the
// beginning of a JSON value.
func eachLine(r io.Reader, do func([]byte) error, cut func()) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxEventLine)
	ended := true
	sc.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		n, line, err := bufio.ScanLines(data, atEOF)
		ended = n == 0 || data[n-1] == '\n'
		return n, line, err
	})
	for sc.Scan() {
		if len(sc.Bytes()) == 0 {
			continue
		}
		if !ended && errors.Is(json.NewDecoder(bytes.NewReader(sc.Bytes())).Decode(&json.RawMessage{}), io.ErrUnexpectedEOF) {
			cut()
			continue
		}
		if err := do(sc.Bytes()); err != nil {
			return err
		}
	}
	return sc.Err()
}
