// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/cli/internal/textdiff"
	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) policyHistoryCommand() *cobra.Command {
	var limit int
	var before uint64
	cmd := &cobra.Command{
		Use:   "history [NAME]",
		Short: "List who changed which documents, newest first",
		Long: "List the revisions that changed documents of the API or of the policy directory, or one\n" +
			"document, with who did it. A revision that changed none of them (a start of the\n" +
			"daemon, a rule for a sandbox or for a time) has a number and is not listed. Needs root, or\nadmin of org:*.",
		Example:           "  ringfence policy history\n  ringfence policy history engineering --limit 5 -o json",
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: a.completeDocuments,
		RunE: func(cmd *cobra.Command, names []string) error {
			if limit < 1 || limit > api.MaxRevisions {
				return usagef("--limit %d is not between 1 and %d", limit, api.MaxRevisions)
			}
			q := api.RevisionQuery{Limit: limit, Before: before}
			if len(names) == 1 {
				q.Name = names[0]
			}
			res, err := a.client().Revisions(cmd.Context(), q)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			rows := make([][]string, len(res.Revisions))
			for i, r := range res.Revisions {
				rows[i] = []string{strconv.FormatUint(r.Number, 10), r.Time.Local().Format(time.DateTime), by(r), r.Action, changes(r.Changes), r.Comment}
			}
			return show.Table(a.out, []string{"REVISION", "TIME", "BY", "ACTION", "DOCUMENTS", "COMMENT"}, rows)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 20, "how many revisions")
	cmd.Flags().Uint64Var(&before, "before", 0, "only revisions before this one")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// by is who made a revision: "root (ringfence, pid 812)".
func by(r api.Revision) string {
	if r.Program == "" {
		return r.Author
	}
	return fmt.Sprintf("%s (%s, pid %d)", r.Author, r.Program, r.PID)
}

// changes names documents with a sign: + added, - removed, ~ changed.
func changes(list []api.DocumentChange) string {
	var parts []string
	for _, c := range list {
		parts = append(parts, map[string]string{"added": "+", "removed": "-"}[c.Change]+c.Kind+"/"+c.Name)
		if c.Change == "changed" {
			parts[len(parts)-1] = "~" + parts[len(parts)-1]
		}
	}
	return strings.Join(parts, " ")
}

func (a *app) policyGetCommand() *cobra.Command {
	var revision uint64
	cmd := &cobra.Command{
		Use:   "get [KIND/]NAME",
		Short: "Print the text of a document, as it is or as it was",
		Long: "Print the documents with a name that are in force on the node, or that were kept as of a\n" +
			"revision. Those that belong to one sandbox are not among them. Where a rule stands is said\n" +
			"as KIND/NAME:LINE of what this prints for documents of the API. Needs root, or admin of org:*.",
		Example:           "  ringfence policy get engineering\n  ringfence policy get Policy/engineering -o json\n  ringfence policy get engineering --revision 12",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeDocuments,
		RunE: func(cmd *cobra.Command, name []string) error {
			res, err := a.documentsCalled(cmd.Context(), name[0], revision)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			_, err = fmt.Fprint(a.out, yamlStream(res.Documents))
			return err
		},
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "as of this revision (default: what is in force)")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// documentsCalled are those of a NAME, or of KIND/NAME.
func (a *app) documentsCalled(ctx context.Context, called string, revision uint64) (api.StoredDocuments, error) {
	kind, name, both := strings.Cut(called, "/")
	if !both {
		kind, name = "", called
	}
	res, err := a.client().StoredDocuments(ctx, name, revision)
	if err != nil || kind == "" {
		return res, err
	}
	res.Documents = slices.DeleteFunc(res.Documents, func(d api.StoredDocument) bool { return d.Kind != kind })
	if len(res.Documents) == 0 {
		return res, api.Errorf(api.CodeNotFound, "there are documents %q, and none of kind %q", name, kind).WithRemedy("`ringfence policy get " + name + "` prints them")
	}
	return res, nil
}

// yamlStream is documents one after the other. They hold no control characters
// but line ends and tabs: YAML knows none.
func yamlStream(docs []api.StoredDocument) string {
	var parts []string
	for _, d := range docs {
		parts = append(parts, strings.TrimRight(d.Text, "\n")+"\n")
	}
	return strings.Join(parts, "---\n")
}

func (a *app) policyDiffCommand() *cobra.Command {
	var log, since string
	cmd := &cobra.Command{
		Use:   "diff N [M] | diff DOCUMENTS DOCUMENTS --replay EVENTLOG",
		Short: "Show how documents differ between two revisions, or what they would have decided otherwise",
		Long: "Show, document by document, what is different as of revision M (the newest without it)\n" +
			"from revision N. To see what one revision did, compare it with the one before. Needs\n" +
			"root, or the role admin of org:*.\n\n" +
			"With --replay, show the past decisions that the second DOCUMENTS would have made otherwise\n" +
			"than the first.\n" + namedDocuments + "\n\n" +
			"Past decisions come from the node's log as far as you may see it (live), or from a file of JSON lines, a\n" +
			"directory of a log, or -. What a record does not hold is not guessed: such decisions are\n" +
			"counted. Of a model call the model is asked again, not the tools that the provider runs.",
		Example: "  ringfence policy diff 11 12\n  ringfence policy diff live new/ --replay live --since 24h\n  ringfence policy diff 11 12 --replay live --since 24h",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, numbers []string) error {
			switch {
			case log != "" && len(numbers) == 2:
				return a.replayed(cmd.Context(), numbers[0], numbers[1], log, since)
			case log != "":
				return usagef("--replay compares two: ringfence policy diff %s live --replay %s", numbers[0], log)
			case since != "":
				return usagef("--since goes with --replay")
			}
			var at [2]uint64
			for i, text := range numbers {
				n, err := revisionNumber(text)
				if err != nil {
					return usagef("%w; what files would decide otherwise is shown with --replay EVENTLOG, and whether they let more pass by `ringfence policy prove`", err)
				}
				at[i] = n
			}
			res, err := a.client().PolicyDiff(cmd.Context(), at[0], at[1])
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			for _, c := range res.Changes {
				a.printDifference(c, fmt.Sprintf("revision %d", res.From), fmt.Sprintf("revision %d", res.To))
			}
			if len(res.Changes) == 0 {
				_, _ = fmt.Fprintf(a.err, "revisions %d and %d have the same documents\n", res.From, res.To)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&log, "replay", "", "event log whose decisions are asked again: file, directory, - or live")
	cmd.Flags().StringVar(&since, "since", "", "with --replay, how far back: 10m, 2h, or a time as 2026-01-31T12:00:00Z")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) printDifference(c api.DocumentChange, from, to string) {
	name := func(text, when string) string {
		if text == "" {
			return "/dev/null"
		}
		return c.Kind + "/" + c.Name + "\t" + when
	}
	_, _ = fmt.Fprintln(a.out, show.Text(fmt.Sprintf("%s %s %s, scope %s, %s", c.Change, c.Kind, c.Name, c.Scope, keptBy(&c)), 500))
	text := textdiff.Unified(name(c.Before, from), name(c.After, to), c.Before, c.After)
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		parts := strings.Split(line, "\t") // which a terminal may have
		for i := range parts {
			parts[i] = show.Text(parts[i], 0)
		}
		_, _ = fmt.Fprintln(a.out, strings.Join(parts, "\t"))
	}
}

// keptBy says where people find a document.
func keptBy(c *api.DocumentChange) string {
	if c.Owner == "directory" {
		return c.File + " of the policy directory"
	}
	return "of the API"
}

func revisionNumber(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return 0, usagef("the revision %q is no number above 0, for example 12", text)
	}
	return n, nil
}

func (a *app) policyRollbackCommand() *cobra.Command {
	var w waitFlags
	var r api.RollbackRequest
	cmd := &cobra.Command{
		Use:   "rollback N",
		Short: "Put the documents of the API back as they were at a revision",
		Long: "Make a new revision in which the documents that apply, allow --always and provider add\n" +
			"wrote are as they were at revision N: what came since goes, what went comes back, whoever\n" +
			"did it, Access documents too. `policy diff N` shows that first; a single document goes\n" +
			"back with `policy get NAME --revision N | policy apply -`. Files\n" +
			"of the policy directory are not touched: where they differ from revision N nothing is\n" +
			"done and they are named, unless --api-only says that this is meant. Keys of providers\n" +
			"are not restored. Needs root, or\nadmin of org:*.\n\n" + waitText,
		Example: "  ringfence policy rollback 12 --wait --comment 'back to before the incident'",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, number []string) (err error) {
			if r.Revision, err = revisionNumber(number[0]); err != nil {
				return err
			}
			res, err := a.client().RollbackPolicy(cmd.Context(), r)
			if err != nil {
				return err
			}
			return a.changed(cmd.Context(), "restored", res, w)
		},
	}
	w.add(cmd)
	cmd.Flags().StringVar(&r.Comment, "comment", "", "why, for the history")
	cmd.Flags().BoolVar(&r.APIOnly, "api-only", false, "also when files of the policy directory differ, which stay as they are")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// completeDocuments offers the names of documents in force.
func (a *app) completeDocuments(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	res, err := a.client().StoredDocuments(ctx, "", 0)
	if err != nil || len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, d := range res.Documents {
		out = append(out, d.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// exportName is the file of a document in an exported directory.
func exportName(d api.StoredDocument) string {
	return filepath.Base(strings.ToLower(d.Kind) + "-" + d.Name + ".yaml")
}
