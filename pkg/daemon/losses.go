// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// tellLossesEvery is how often the kernel's loss counters are looked at.
const tellLossesEvery = 5 * time.Second

// lossFile is in the run directory.
const lossFile = "losses.json"

// losses turns the kernel's loss counters of each sandbox into gap events, each
// loss once: what a sandbox tried is what its events count and what these say.
// What was told is kept beside the counters, in the run directory, so a restart
// neither forgets nor repeats it; a daemon that is killed between the event and
// that note tells it twice, never not at all.
type losses struct {
	path   string
	append func(*event.Event) error // durable when it returns
	logger *slog.Logger

	mu   sync.Mutex // guards what follows
	note lossNote
}

// lossNote is the file.
type lossNote struct {
	Told map[uint32]lossCounts `json:"told"` // by the sandbox's number
	All  lossCounts            `json:"all"`  // of all sandboxes, also of those that have ended
}

// lossCounts are by ring and reason.
type lossCounts map[string]uint64

// openLosses reads what a former daemon noted. A file that cannot be read
// counts as none: what it told is told again.
func openLosses(path string, logger *slog.Logger, append func(*event.Event) error) *losses {
	l := &losses{path: path, append: append, logger: logger}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &l.note)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		logger.Error("which losses were told is not known; they are told again", "error", err)
	}
	if err != nil || l.note.Told == nil || l.note.All == nil {
		l.note = lossNote{Told: map[uint32]lossCounts{}, All: lossCounts{}}
	}
	return l
}

// lossReasons are the ways in which the kernel loses a record.
var lossReasons = [...]struct {
	code, text string
	of         func(kernel.RingCounters) uint64
}{
	{"full", "the kernel's ring had no room: the daemon was away or too slow", func(c kernel.RingCounters) uint64 { return c.Full }},
	{"throttled", "the sandbox was over its share of the kernel's records; what it tried was decided all the same", func(c kernel.RingCounters) uint64 { return c.Throttled }},
}

// tell makes events of what one sandbox lost since the last look; about begins
// each. It returns whether there were any.
func (l *losses) tell(number uint32, about func() *event.Event, rings []kernel.RingCounters) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := false
	for _, c := range rings {
		for _, r := range lossReasons {
			key, n := c.Ring.String()+"/"+r.code, r.of(c)
			told := l.note.Told[number][key]
			if n < told { // other counters than those that were told of
				told = 0
			}
			if n == told {
				continue
			}
			e := about()
			e.Activity, e.Object, e.ReasonCode, e.Reason, e.Lost = "kernel-ring", c.Ring.String()+" ring", r.code, r.text, n-told
			if err := l.append(e); err != nil {
				return news, err
			}
			if l.note.Told[number] == nil {
				l.note.Told[number] = lossCounts{}
			}
			l.note.Told[number][key], news = n, true
			l.note.All[key] += n - told
		}
	}
	return news, nil
}

// leave tells what the counters of a former layout have beyond what was told by
// sandbox: its programs counted on until the last one was gone. The counters of
// this layout begin anew.
func (l *losses) leave(layout int, last []kernel.RingCounters) error {
	l.mu.Lock()
	var err error
	for _, c := range last {
		for _, r := range lossReasons {
			key, n := c.Ring.String()+"/"+r.code, r.of(c)
			if told := l.note.All[key]; err == nil && n > told {
				err = l.append(lossOf(c.Ring.String()+" ring", r.code, fmt.Sprintf("%s; counted by the kernel programs of layout %d, up to the upgrade", r.text, layout), n-told))
			}
		}
	}
	l.note = lossNote{Told: map[uint32]lossCounts{}, All: lossCounts{}}
	l.mu.Unlock()
	return errors.Join(err, l.save())
}

func (l *losses) forget(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.note.Told, number)
}

func (l *losses) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return saveNote(l.path, "told losses", l.note)
}

// saveNote replaces a file of the run directory. It need not survive a crash of
// the machine: what it is a note of does not either.
func saveNote(path, what string, note any) error {
	b, err := json.Marshal(note)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("note of %s: %w", what, err)
	}
	return nil
}

// tellLosses runs until ctx ends.
func (d *Daemon) tellLosses(ctx context.Context) {
	tick := time.NewTicker(tellLossesEvery)
	defer tick.Stop()
	for {
		d.lookAtLosses()
		select {
		case <-tick.C:
		case <-ctx.Done():
			d.lookAtLosses()
			return
		}
	}
}

// lookAtLosses tells what every living sandbox lost, and the gateway, and
// cgroups that are nobody's.
func (d *Daemon) lookAtLosses() {
	numbers := []uint32{0, gatewayNumber}
	for _, s := range d.sandboxes.List() {
		numbers = append(numbers, s.Record.Number)
	}
	news := false
	for _, n := range numbers {
		news = d.tellLossesOf(n) || news
	}
	if news {
		if err := d.losses.save(); err != nil {
			d.logger.Error("told losses", "error", err)
		}
	}
}

func (d *Daemon) tellLossesOf(number uint32) bool {
	rings, err := d.fence.LossesOf(number)
	if errors.Is(err, kernel.ErrNoSandbox) {
		return false // it ended meanwhile, and was told then
	}
	news := false
	if err == nil {
		news, err = d.losses.tell(number, func() *event.Event {
			e, _ := d.about(event.KindLoss, kernel.Head{Sandbox: number, Time: time.Now().UTC()})
			e.Verdict = event.Observed
			return e
		}, rings[:])
	}
	if err != nil {
		d.logger.Error("losses of kernel records are not told", "error", err)
	}
	return news
}
