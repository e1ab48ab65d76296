// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// takenFile is in the run directory: it lives as long as the kernel's counters.
const takenFile = "taken.json"

// settleTime is how long a record that was taken from the kernel may take into
// the log: repeats are held back for repeatWindow.
const settleTime = repeatWindow + 3*time.Second

// unwritten accounts for records that a killed daemon had taken from the kernel
// and may not have written into the log. How many were written is noted, some
// seconds late; the next daemon compares. It is used by one goroutine at a time.
type unwritten struct {
	path   string
	append func(*event.Event) error // durable when it returns

	note    takenNote
	known   bool // what note says; false where no daemon before this one noted it
	history []position
}

// takenNote is the file. Counts are of the maps of one layout.
type takenNote struct {
	Layout int    `json:"layout"`
	Taken  uint64 `json:"taken"` // records that were taken from the kernel and are in the log
}

type position struct {
	at time.Time
	n  uint64
}

func openUnwritten(path string, logger *slog.Logger, append func(*event.Event) error) *unwritten {
	u := &unwritten{path: path, append: append, note: takenNote{Layout: kernel.Layout()}}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &u.note)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		logger.Error("which records the former daemon wrote is not known", "error", err)
	}
	u.known = err == nil
	return u
}

// tell accounts for the records that the kernel kept until now: those that are
// neither noted as written nor were found in the rings.
func (u *unwritten) tell(kept, found uint64) error {
	if !u.known {
		u.known, u.note.Taken = true, kept
	}
	if kept <= u.note.Taken+found {
		return nil
	}
	e := lossOf("keeper", "keeper-killed", "at most so many records: the daemon before this one had taken them from the kernel and was killed; "+
		"most of them are in the log, those of its last seconds may not be", kept-u.note.Taken-found)
	if err := u.append(e); err != nil {
		return err
	}
	u.note.Taken = kept
	return nil
}

// lossOf is a gap event on records of no certain sandbox.
func lossOf(where, code, text string, n uint64) *event.Event {
	return &event.Event{Kind: event.KindLoss, Time: time.Now().UTC(), Source: "keeper", Layer: "kernel", Verdict: event.Observed,
		Activity: "kernel-ring", Object: where, ReasonCode: code, Reason: text, Lost: n}
}

// settled notes how many records were taken by now and returns how many of
// them must be in the log.
func (u *unwritten) settled(now time.Time, taken uint64) uint64 {
	u.history = append(u.history, position{now, taken})
	for len(u.history) > 1 && now.Sub(u.history[1].at) >= settleTime {
		u.history = u.history[1:]
	}
	if now.Sub(u.history[0].at) < settleTime {
		return u.note.Taken
	}
	return max(u.history[0].n, u.note.Taken)
}

// leave is the last word of the counters of a former layout.
func (u *unwritten) leave(layout int, kept, found uint64) error {
	if u.note.Layout == layout {
		if err := u.tell(kept, found); err != nil {
			return err
		}
	}
	u.note, u.known = takenNote{Layout: kernel.Layout()}, true
	return u.save()
}

func (u *unwritten) save() error { return saveNote(u.path, "written records", u.note) }

// noteTaken runs until ctx ends. At its first look the rings may not have been
// read to where they were when this daemon began.
func (d *Daemon) noteTaken(ctx context.Context) {
	tick := time.NewTicker(tellLossesEvery)
	defer tick.Stop()
	for first := true; ; first = false {
		d.lookAtTaken(first)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *Daemon) lookAtTaken(first bool) {
	var err error
	if !first || !d.unwritten.known {
		err = d.unwritten.tell(d.recordsBefore, d.recordsFound.Load())
	}
	if err == nil && !first {
		d.unwritten.note.Taken = d.unwritten.settled(time.Now(), d.recordsBefore+d.recordsTaken.Load())
	}
	if err = errors.Join(err, d.unwritten.save()); err != nil {
		d.logger.Error("records that may be missing are not told", "error", err)
	}
}

// lastTaken is for the end, when everything that was taken is in the log.
func (d *Daemon) lastTaken() {
	d.lookAtTaken(false)
	d.unwritten.note.Taken = d.recordsBefore + d.recordsTaken.Load()
	if err := d.unwritten.save(); err != nil {
		d.logger.Error("records that were written", "error", err)
	}
}

// leaveFormer ends a change of the layout: the last records and counters of the
// one before this.
func (d *Daemon) leaveFormer() error {
	var found uint64
	end, err := d.fence.LeaveFormer(func(r kernel.Record) {
		found++
		d.record(r)
	})
	if err != nil || end.Layout == 0 {
		return err
	}
	d.daemonEvent("layout-left", fmt.Sprintf("every sandbox is behind the kernel programs of layout %d; those of layout %d are gone", kernel.Layout(), end.Layout))
	var kept uint64
	for _, r := range end.Counters {
		kept += r.Kept
	}
	if end.Unread > 0 {
		d.append(lossOf("kernel rings", "former-layout", fmt.Sprintf("they lay in the rings of layout %d, whose records this version cannot read", end.Layout), end.Unread))
	}
	return errors.Join(d.losses.leave(end.Layout, end.Counters), d.unwritten.leave(end.Layout, kept, found+end.Unread))
}
