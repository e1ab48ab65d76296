// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// lastFlags are those of what becomes a rule that stays.
type lastFlags struct {
	persist bool
	yes     string // "" not, yesToAnything, or the beginning of the digest of what was shown
}

// yesToAnything is --yes without a digest.
const yesToAnything = "proposed"

func (f *lastFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.persist, "persist", false, "as a rule that stays: shows what it would change (a draft is always that)")
	cmd.Flags().StringVar(&f.yes, "yes", "", "with --persist or a draft: write the rule too; --yes=DIGEST only if it is what was shown with that digest")
	cmd.Flags().Lookup("yes").NoOptDefVal = yesToAnything
}

// lasting says whether a rule is meant, and refuses flags that do not go with it.
func (f *lastFlags) lasting(cmd *cobra.Command, id string) (bool, error) {
	draft := api.IsDraft(id)
	for _, other := range []string{"once", "for", "sandbox", "args"} {
		if cmd.Flags().Changed(other) && (f.persist || draft) {
			return false, usagef("--%s is for a request that waits; a rule that stays has no end", other)
		}
	}
	if f.yes != "" && !f.persist && !draft {
		return false, usagef("--yes goes with --persist, or with a draft")
	}
	return f.persist || draft, nil
}

// shownDigits of the digest are enough to tell proposals apart.
const shownDigits = 16

// last shows the rule that would be written and, when that is wanted, writes what
// was shown and nothing else.
func (a *app) last(ctx context.Context, id, comment, yes string) error {
	apply := yes != ""
	ask := a.client().LastApproval
	if api.IsDraft(id) {
		ask = a.client().LastDraft
	}
	res, err := ask(ctx, id, api.LastingRequest{Comment: comment})
	if err != nil {
		return err
	}
	if apply && yes != yesToAnything && (len(yes) < shownDigits || !strings.HasPrefix(res.Digest, yes)) {
		return &exitError{Code: exitGeneric, Err: errors.New("what would be written now is not what was shown with that digest; nothing was changed"), Remedy: "look at it again without --yes"}
	}
	if !a.json() {
		for _, c := range res.Documents {
			a.printDifference(c, "as it is", "as it would be")
		}
	}
	if apply {
		if res, err = ask(ctx, id, api.LastingRequest{Apply: true, Expect: res.Digest, Comment: comment}); err != nil {
			return err
		}
	}
	switch {
	case a.json():
		return show.JSON(a.out, res)
	case !apply:
		persist := " --persist"
		if api.IsDraft(id) {
			persist = ""
		}
		_, err = fmt.Fprintf(a.err, "nothing was changed. To write it: ringfence approvals approve %s%s --yes=%s\n", show.Text(id, 100), persist, show.Text(res.Digest[:min(len(res.Digest), shownDigits)], 0))
		return err
	}
	var in []string
	for _, c := range res.Documents {
		in = append(in, c.Name)
	}
	_, err = fmt.Fprintln(a.out, show.Text(fmt.Sprintf("%s may reach %s, revision %d; the rule stands in %s", res.For, res.Allows, res.Revision, strings.Join(in, ", ")), 1000))
	return err
}

func (a *app) printDrafts(ctx context.Context) error {
	list, err := a.client().Drafts(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return show.JSON(a.out, list)
	}
	rows := make([][]string, len(list))
	more := uint64(0)
	for i, d := range list {
		rows[i] = []string{d.ID, d.Scope, d.Destination, strconv.FormatUint(d.Count, 10), show.Age(time.Since(d.Last))}
		more += d.More
	}
	if err := show.Table(a.out, []string{"ID", "SCOPE", "DESTINATION", "TIMES", "LAST"}, rows); err != nil || more == 0 {
		return err
	}
	_, err = fmt.Fprintln(a.err, "some of these sandboxes were denied more than has room here: `ringfence events` has all of it")
	return err
}

// showDraft is `approvals show` for one.
func (a *app) showDraft(ctx context.Context, id string) error {
	list, err := a.client().Drafts(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(d api.Draft) bool { return d.ID == id })
	if i < 0 {
		return api.Errorf(api.CodeNotFound, "no draft %q", id).WithRemedy("`ringfence approvals list --drafts` lists them")
	}
	d := &list[i]
	if a.json() {
		return show.JSON(a.out, d)
	}
	return a.printLines([][2]string{{"draft", d.ID}, {"scope", d.Scope}, {"egress", d.Destination}, {"denied", plural(int(d.Count), "time", "times") + ", first " + stamp(d.First) + ", last " + stamp(d.Last)},
		{"why", "no rule is about it"}, {"sandboxes", strings.Join(d.Sandboxes, " ")}, {"rule", "ringfence approvals approve " + d.ID + " shows it"}})
}
