// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// waitFlags are common to what changes the policy of the node.
type waitFlags struct {
	wait    bool
	timeout time.Duration
}

const enforceTimeout = 10 * time.Second

func (w *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "return when every running sandbox is under it")
	w.addTimeout(cmd)
}

func (w *waitFlags) addTimeout(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&w.timeout, "timeout", enforceTimeout, "how long to wait for that")
}

const waitText = "With --wait the command returns when kernel and gateway judge every running sandbox on\n" +
	"it, and connections that it denies are ended; sandboxes for which that is not so within\n" +
	"the timeout are named, and the exit code is 7. What is stored stays stored then, and is\n" +
	"put into force as soon as that is possible."

func (a *app) policyApplyCommand() *cobra.Command {
	var w waitFlags
	var forScope string
	var comment string
	cmd := &cobra.Command{
		Use:   "apply FILE|DIR|PACK...",
		Short: "Put documents into force, all of them or none",
		Long: "Store documents in the daemon and put them into force, in one revision: all of them, or\n" +
			"none if one has a mistake. They replace what was applied under the same kind and name\n" +
			"before, and stay across restarts; policy delete removes them and policy rollback goes\n" +
			"back. A document of the policy directory is not replaced. Of a directory every *.yaml\n" +
			"and *.yml is taken; - is standard input. The name of a pack that ships with Ringfence\n" +
			"(see policy packs) applies that pack, for every sandbox without --as or for the scope\n" +
			"that --scope names. Needs root, or the role policy-author in the scope of each Policy document\n" +
			"(admin for Access documents).\n\n" + waitText,
		Example: "  ringfence policy apply --wait engineering.yaml\n  ringfence policy apply ./policies\n" +
			"  ringfence policy apply coding-agent package-registries --scope org:acme/team:eng",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeApply,
		RunE: func(cmd *cobra.Command, names []string) error {
			docs, err := a.documentTexts(names, forScope)
			if err != nil {
				return err
			}
			res, err := a.client().ApplyPolicy(cmd.Context(), api.ApplyRequest{Documents: docs, Comment: comment})
			if err != nil {
				return err
			}
			return a.changed(cmd.Context(), "applied", res, w)
		},
	}
	w.add(cmd)
	cmd.Flags().StringVar(&forScope, "scope", "", "whom packs are for, such as org:acme/team:eng")
	cmd.Flags().StringVar(&comment, "comment", "", "why, for the history")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// documentTexts reads files, and those of directories, with the caller's rights,
// and packs.
func (a *app) documentTexts(names []string, forScope string) ([]api.Document, error) {
	packs, names, err := packsOf(names, forScope)
	if err != nil {
		return nil, err
	}
	if names, err = documentFiles(names); err != nil {
		return nil, err
	}
	var docs []api.Document
	for _, p := range packs {
		docs = append(docs, api.Document{File: p.File, Text: p.Text})
	}
	for _, name := range names {
		text, err := a.readDocument(name)
		if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(name, "./") {
			return nil, fmt.Errorf("%q is no file, directory or pack; `ringfence policy packs` lists the packs", name)
		}
		if err != nil {
			return nil, err
		}
		if len(text) == 0 {
			return nil, fmt.Errorf("%s is empty", name)
		}
		docs = append(docs, api.Document{File: name, Text: string(text)})
	}
	return docs, nil
}

func (a *app) policyDeleteCommand() *cobra.Command {
	var w waitFlags
	var comment string
	cmd := &cobra.Command{
		Use:     "delete [KIND/]NAME",
		Short:   "Remove a document that policy apply put into force",
		Long:    "Remove what policy apply stored under a name, and put that into force; KIND/NAME, such as\nAccess/engineering, where documents of several kinds have it. Needs what applying it needs.\n\n" + waitText,
		Example: "  ringfence policy delete engineering --wait",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, name []string) error {
			res, err := a.client().DeletePolicy(cmd.Context(), name[0], comment)
			if err != nil {
				return err
			}
			return a.changed(cmd.Context(), "removed", res, w)
		},
		ValidArgsFunction: a.completeDocuments,
	}
	w.add(cmd)
	cmd.Flags().StringVar(&comment, "comment", "", "why, for the history")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) policyWaitCommand() *cobra.Command {
	var w waitFlags
	cmd := &cobra.Command{
		Use:     "wait REVISION",
		Short:   "Wait until every running sandbox is under a revision",
		Long:    "Wait until kernel and gateway judge every running sandbox on a policy revision or a\nlater one. Exit code 7 when that is not so within the timeout. Needs root, or the role\npolicy-author or admin of some scope.",
		Example: "  ringfence policy wait 12 --timeout 30s",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, arg []string) error {
			revision, err := revisionNumber(arg[0])
			if err != nil {
				return err
			}
			e, err := a.client().Enforced(cmd.Context(), revision, w.timeout)
			if err != nil {
				return err
			}
			if a.json() {
				if err := show.JSON(a.out, e); err != nil {
					return err
				}
			}
			return a.printEnforced(e, w.timeout)
		},
	}
	w.addTimeout(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// changed is a change of the policy with, if it was waited for, where it is in
// force.
type changed struct {
	api.PolicyChange
	Enforcement *api.Enforcement `json:"enforcement,omitempty"`
}

// changed tells of a change and, if that was asked for, waits for it.
func (a *app) changed(ctx context.Context, what string, res api.PolicyChange, w waitFlags) error {
	if !a.json() {
		for _, d := range res.Documents {
			did := what
			if d.Change == "removed" || d.Change == "unchanged" {
				did = d.Change
			}
			file := ""
			if f := d.InFile(); f != "" {
				file = " (" + show.Text(filepath.Base(f), 200) + ")"
			}
			_, _ = fmt.Fprintf(a.out, "%s %s %s%s, revision %d\n", did, show.Text(d.Kind, 50), show.Text(d.Name, 200), file, res.Revision)
		}
		for _, note := range res.Notes {
			_, _ = fmt.Fprintln(a.out, show.Text(note, 500))
		}
	}
	out := changed{PolicyChange: res}
	if w.wait {
		e, err := a.client().Enforced(ctx, res.Revision, w.timeout)
		if err != nil {
			return err
		}
		out.Enforcement = &e
	}
	if a.json() {
		if err := show.JSON(a.out, out); err != nil {
			return err
		}
	}
	if out.Enforcement == nil {
		return nil
	}
	return a.printEnforced(*out.Enforcement, w.timeout)
}

// printEnforced says where a revision is in force, and names where it is not.
func (a *app) printEnforced(e api.Enforcement, timeout time.Duration) error {
	if e.InForce {
		if !a.json() {
			_, _ = fmt.Fprintf(a.out, "revision %d is in force in %s\n", e.Revision, plural(e.Sandboxes, "running sandbox", "running sandboxes"))
		}
		return nil
	}
	line := fmt.Sprintf("ringfence: revision %d is not in force everywhere after %s", e.Revision, timeout)
	if e.Detail != "" {
		line += ": " + e.Detail
	}
	_, _ = fmt.Fprintln(a.err, show.Text(line, 1000))
	for _, b := range e.Behind {
		line := fmt.Sprintf("  sandbox %s (%s): revision %d in the kernel, %d in the gateway", b.ID, b.Name, b.Kernel, b.Gateway)
		if b.Gateway == 0 {
			line = fmt.Sprintf("  sandbox %s (%s): revision %d in the kernel, not served by the gateway", b.ID, b.Name, b.Kernel)
		}
		_, _ = fmt.Fprintln(a.err, show.Text(line, 500))
	}
	return quiet(exitDegraded)
}
