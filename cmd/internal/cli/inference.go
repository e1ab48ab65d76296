// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

func (a *app) inferenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inference",
		Short: "See how providers are; switch models and stop model calls while agents run",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to do: ringfence inference status|set|unset|stop|start")
		},
	}
	cmd.AddCommand(a.inferenceStatusCommand(), a.inferenceSetCommand(), a.inferenceUnsetCommand(), a.inferenceStopCommand(), a.inferenceStartCommand())
	return cmd
}

func (a *app) inferenceStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how those are that answer model calls: health, breakers, latency",
		Long: "Show each provider, model and key that was asked lately: whether it is asked (closed), set\n" +
			"aside after failures (open) or probed (half-open), why, how long its answers take to begin,\n" +
			"and how many run. Those that are set aside stand first. Needs root, or admin of org:*.",
		Example: "  ringfence inference status",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.client().Inference(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, st)
			}
			if len(st.Places) == 0 {
				_, err := fmt.Fprintln(a.out, "no provider has been asked since the gateway started")
				return err
			}
			rows := make([][]string, len(st.Places))
			for i, p := range st.Places {
				rows[i] = []string{p.Provider, p.Model, p.Key, p.State, span(p.ProbedIn), span(p.Latency), strconv.Itoa(int(p.Running)), p.Why}
			}
			return show.Table(a.out, []string{"PROVIDER", "MODEL", "KEY", "STATE", "PROBED IN", "LATENCY", "RUNNING", "WHY"}, rows)
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// span is a duration for people; "" for none.
func span(d api.Duration) string {
	if d == 0 {
		return ""
	}
	return time.Duration(d).Round(time.Millisecond).String()
}

// switchFlags are common to the commands that write one document for a scope.
type switchFlags struct {
	waitFlags
	scope   string
	comment string
}

func (f *switchFlags) add(cmd *cobra.Command) {
	f.waitFlags.add(cmd)
	cmd.Flags().StringVar(&f.scope, "scope", "", "whom it is for, such as org:acme/team:eng")
	cmd.Flags().StringVar(&f.comment, "comment", "", "why, for the history")
	_ = cmd.MarkFlagRequired("scope")
}

// document reads the scope and gives the name of the document that these commands write
// for it: a word, and what stands for scope and object.
func (f *switchFlags) document(word, object string) (scope.Selector, string, error) {
	sel, err := scope.ParseSelector(f.scope)
	if err != nil {
		return sel, "", usagef("--scope: %v", err)
	}
	sum := sha256.Sum256([]byte(sel.String() + "\x00" + object))
	return sel, word + "-" + hex.EncodeToString(sum[:5]), nil
}

func (a *app) put(ctx context.Context, f *switchFlags, name string, sel scope.Selector, rest string) error {
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\nscope: %s\n%s", policy.APIVersion, policy.KindPolicy, name, strconv.Quote(sel.String()), rest)
	res, err := a.client().ApplyPolicy(ctx, api.ApplyRequest{Documents: []api.Document{{File: name + ".yaml", Text: text}}, Comment: f.comment})
	if err != nil {
		return err
	}
	return a.changed(ctx, "applied", res, f.waitFlags)
}

// knownProvider refuses a provider that no document in force names, as far as the
// caller sees all of them: calls would be answered by nobody.
func (a *app) knownProvider(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	v, err := a.client().Policy(ctx, "")
	if err != nil || len(v.Within) > 0 {
		return err
	}
	var names []string
	for _, d := range v.Documents {
		if d.Kind == policy.KindProvider {
			if d.Name == name {
				return nil
			}
			names = append(names, d.Name)
		}
	}
	if len(names) == 0 {
		return api.Errorf(api.CodeNotFound, "no provider %q: none is configured (ringfence provider add)", name)
	}
	return api.Errorf(api.CodeNotFound, "no provider %q: there is %s", name, strings.Join(names, ", "))
}

// drop removes the document; what stands in an error where there is none.
func (a *app) drop(ctx context.Context, f *switchFlags, name, what string) error {
	res, err := a.client().DeletePolicy(ctx, policy.KindPolicy+"/"+name, f.comment)
	var e *api.Error
	if errors.As(err, &e) && e.Code == api.CodeNotFound {
		return api.Errorf(api.CodeNotFound, "%s for exactly %s", what, f.scope)
	}
	if err != nil {
		return err
	}
	return a.changed(ctx, "removed", res, f.waitFlags)
}

func (a *app) inferenceSetCommand() *cobra.Command {
	var f switchFlags
	var provider, model string
	cmd := &cobra.Command{
		Use:   "set MODEL",
		Short: "Have another model or provider answer for a model, without touching the agent",
		Long: "Have calls of MODEL, or of a pattern such as 'gpt-*', answered by another provider, as\n" +
			"another model, or both, from the next call on. It is a route that overrides those of\n" +
			"other documents, and it opens nothing: policy decides about the model that was asked for\n" +
			"and about the one that answers. Needs root, or the role policy-author in the scope.\n\n" + waitText,
		Example: "  ringfence inference set fast --provider openai --model gpt-5-mini --scope org:acme\n" +
			"  ringfence inference set 'claude-*' --model claude-haiku-4-5 --scope org:acme/team:eng --wait",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			if provider == "" && model == "" {
				return usagef("name who answers: --provider NAME, --model NAME, or both")
			}
			sel, name, err := f.document("switch", words[0])
			if err != nil {
				return err
			}
			var to []string
			if err := a.knownProvider(cmd.Context(), provider); err != nil {
				return err
			}
			if provider != "" {
				to = append(to, "provider: "+strconv.Quote(provider))
			}
			if model != "" {
				to = append(to, "model: "+strconv.Quote(model))
			}
			return a.put(cmd.Context(), &f, name, sel, fmt.Sprintf("routes:\n  - {id: switch, models: [%s], override: true, to: [{%s}]}\n", strconv.Quote(words[0]), strings.Join(to, ", ")))
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&provider, "provider", "", "the Provider that answers")
	cmd.Flags().StringVar(&model, "model", "", "the model that answers")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) inferenceUnsetCommand() *cobra.Command {
	var f switchFlags
	cmd := &cobra.Command{
		Use:     "unset MODEL",
		Short:   "Take `inference set` back",
		Long:    "Take back what `ringfence inference set` did for exactly this model or pattern and scope.\n\n" + waitText,
		Example: "  ringfence inference unset fast --scope org:acme",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, words []string) error {
			_, name, err := f.document("switch", words[0])
			if err != nil {
				return err
			}
			return a.drop(cmd.Context(), &f, name, fmt.Sprintf("nothing was set for the model %q", words[0]))
		},
	}
	f.add(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) inferenceStopCommand() *cobra.Command {
	var f switchFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Stop all model calls of a scope: the kill switch",
		Long: "Refuse every model call of a scope from now on, and end those that run. It is a mandatory\n" +
			"rule, which no document of a narrower scope can lift. Needs root, or the role\n" +
			"policy-author in the scope.\n\n" + waitText,
		Example: "  ringfence inference stop --scope org:acme/team:eng --reason 'a key has leaked' --wait",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			sel, name, err := f.document("stop", "")
			if err != nil {
				return err
			}
			return a.put(cmd.Context(), &f, name, sel, fmt.Sprintf("inference:\n  - {id: stop, deny: \"*\", mandatory: true, reason: %s}\n", strconv.Quote(reason)))
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "an operator stopped all model calls", "what agents are told")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) inferenceStartCommand() *cobra.Command {
	var f switchFlags
	cmd := &cobra.Command{
		Use:     "start",
		Short:   "Take `inference stop` back",
		Long:    "Take back what `ringfence inference stop` did for exactly this scope.\n\n" + waitText,
		Example: "  ringfence inference start --scope org:acme/team:eng",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, name, err := f.document("stop", "")
			if err != nil {
				return err
			}
			return a.drop(cmd.Context(), &f, name, "model calls were not stopped")
		},
	}
	f.add(cmd)
	a.outputFlag(cmd, "table", "json")
	return cmd
}
