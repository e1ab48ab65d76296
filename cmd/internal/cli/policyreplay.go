// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/replay"
)

// replayResult is the answer of policy diff --replay with -o json.
type replayResult struct {
	Decided     uint64            `json:"decided"`
	Changed     uint64            `json:"changed"`
	Beyond      uint64            `json:"beyond,omitempty"`      // changed ones that are not listed
	Undecidable map[string]uint64 `json:"undecidable,omitempty"` // decisions whose record does not hold what was asked, by why
	Changes     []replayChange    `json:"changes"`
}

type replayChange struct {
	Count    uint64       `json:"count"`
	Scope    string       `json:"scope"`
	Question string       `json:"question"`
	From     replayAnswer `json:"from"`
	To       replayAnswer `json:"to"`
	Example  string       `json:"example"` // an event
}

type replayAnswer struct {
	Verdict string `json:"verdict"`
	Rule    string `json:"rule,omitempty"`
}

// replayed asks documents what was asked in the past, and tells what differs.
func (a *app) replayed(ctx context.Context, from, to, log, since string) error {
	if err := toEvaluate(); err != nil {
		return err
	}
	q := api.EventQuery{}
	var err error
	if q.Since, err = parseSince(since, time.Now()); err != nil {
		return err
	}
	c := &replay.Comparison{}
	for i, name := range []string{from, to} {
		docs, err := a.documentsNamed(ctx, []string{name})
		if err != nil {
			return err
		}
		snap, err := compile(uint64(i), docs)
		if err != nil {
			return err
		}
		if i == 0 {
			c.From = snap
		} else {
			c.To = snap
		}
	}
	if err := a.pastEvents(ctx, log, q, c); err != nil {
		return err
	}
	res := replayResult{Decided: c.Decided, Changed: c.Changed, Beyond: c.Beyond, Undecidable: c.Undecidable, Changes: []replayChange{}}
	for _, x := range c.Changes() {
		res.Changes = append(res.Changes, replayChange{x.Count, x.Scope, x.Question, replayAnswer(x.From), replayAnswer(x.To), x.Example})
	}
	if a.json() {
		return show.JSON(a.out, res)
	}
	return a.printReplay(&res)
}

func (a *app) printReplay(res *replayResult) error {
	answer := func(v replayAnswer) string {
		if v.Rule == "" {
			return v.Verdict
		}
		return v.Verdict + " by " + v.Rule
	}
	var rows [][]string
	for _, c := range res.Changes {
		rows = append(rows, []string{strconv.FormatUint(c.Count, 10), c.Scope, c.Question, answer(c.From), answer(c.To)})
	}
	if len(rows) > 0 {
		if err := show.Table(a.out, []string{"COUNT", "SCOPE", "ASKED FOR", "BEFORE", "AFTER"}, rows); err != nil {
			return err
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d past decisions would change\n", res.Changed, res.Decided)
	if res.Beyond > 0 {
		fmt.Fprintf(&b, "%d of them are not listed: too many different ones\n", res.Beyond)
	}
	for _, why := range slices.Sorted(maps.Keys(res.Undecidable)) {
		fmt.Fprintln(&b, show.Text(fmt.Sprintf("not asked again: %d, %s", res.Undecidable[why], why), 500))
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}
