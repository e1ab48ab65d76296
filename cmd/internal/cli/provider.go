// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
)

func (a *app) providerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "provider",
		Short: "Configure the providers that answer model calls (root, or admin of org:*)",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to do: ringfence provider add|list|remove")
		},
	}
	cmd.AddCommand(a.providerAddCommand(), a.providerListCommand(), a.providerRemoveCommand())
	return cmd
}

func (a *app) providerListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List providers; keys are never shown",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.client().Providers(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, list)
			}
			rows := make([][]string, len(list))
			for i, p := range list {
				rows[i] = []string{p.Name, p.Dialect, p.BaseURL, p.Credential, keyState(p), strings.Join(p.Models, ",")}
			}
			return show.Table(a.out, []string{"NAME", "DIALECT", "URL", "CREDENTIAL", "KEY", "MODELS"}, rows)
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func keyState(p api.Provider) string {
	switch {
	case p.HasSecret:
		return "set"
	case p.Credential == "passthrough":
		return "the agent's"
	}
	return "missing"
}

func (a *app) providerAddCommand() *cobra.Command {
	var r api.ProviderRequest
	var keyEnv string
	var keyStdin bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add or replace a provider",
		Long: "Add or replace a provider. The key is read from your environment or from standard\n" +
			"input, never from the command line, and stored by the daemon, readable by root only.\n" +
			"For a NAME that is known (openai, anthropic ...) everything but the key has a default.",
		Example: "  ringfence provider add openai --key-env OPENAI_API_KEY\n" +
			"  ringfence provider add local --dialect openai --base-url http://127.0.0.1:8000/v1 --key-stdin < key\n" +
			"  ringfence provider add aws --dialect anthropic --platform bedrock --base-url https://bedrock-runtime.eu-west-1.amazonaws.com --key-env AWS_BEARER_TOKEN_BEDROCK\n" +
			"  ringfence provider add anthropic --credential passthrough",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			r.Name = names[0]
			key, err := a.readKey(keyEnv, keyStdin)
			if err != nil {
				return err
			}
			r.Key = key
			p, err := a.client().AddProvider(cmd.Context(), r)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, p)
			}
			_, err = fmt.Fprintf(a.out, "provider %s: dialect %s, %s, key %s\n", show.Text(p.Name, 64), show.Text(p.Dialect, 64), show.Text(p.BaseURL, 300), keyState(p))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyEnv, "key-env", "", "the environment variable that holds the key")
	f.BoolVar(&keyStdin, "key-stdin", false, "read the key from standard input")
	f.StringVar(&r.Dialect, "dialect", "", "what it speaks: openai, anthropic ...")
	f.StringVar(&r.Platform, "platform", "", "how it is addressed: "+strings.Join(policy.Platforms(), ", ")+"; none for the dialect's own API")
	f.StringVar(&r.BaseURL, "base-url", "", "where it is")
	f.StringVar(&r.Credential, "credential", "", "inject (the stored key) or passthrough (the agent's own)")
	f.StringSliceVar(&r.Models, "model", nil, "models it serves, * allowed (repeatable)")
	f.StringSliceVar(&r.ResolvesTo, "resolves-to", nil, "private addresses that its host may have, as prefixes (repeatable)")
	cmd.MarkFlagsMutuallyExclusive("key-env", "key-stdin")
	_ = cmd.RegisterFlagCompletionFunc("platform", cobra.FixedCompletions(policy.Platforms(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("credential", cobra.FixedCompletions([]string{"inject", "passthrough"}, cobra.ShellCompDirectiveNoFileComp))
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) providerRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a provider that `provider add` made, and its key",
		Long: "Remove the document that `ringfence provider add` wrote and the key stored with it.\n" +
			"Running sandboxes are affected at once. A provider of the policy directory is\n" +
			"removed there.",
		Example:           "  ringfence provider remove openai",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: a.completeProviders,
		RunE: func(cmd *cobra.Command, names []string) error {
			res, err := a.client().RemoveProvider(cmd.Context(), names[0])
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			key := "its key too"
			if res.KeptKey != "" {
				key = "its key stays: " + show.Text(res.KeptKey, 300) + " names it"
			}
			_, err = fmt.Fprintf(a.out, "removed provider %s, %s, revision %d\n", show.Text(res.Name, 64), key, res.Revision)
			if res.Note != "" {
				_, err = fmt.Fprintln(a.out, show.Text(res.Note, 300))
			}
			return err
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// completeProviders offers the names of providers.
func (a *app) completeProviders(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	list, err := a.client().Providers(ctx)
	if err != nil || len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, p := range list {
		out = append(out, p.Name)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// maxKey bounds a key.
const maxKey = 16 << 10

// readKey takes the key from where the caller said; none is a valid choice.
func (a *app) readKey(env string, stdin bool) (api.Secret, error) {
	switch {
	case env != "":
		key := strings.TrimSpace(os.Getenv(env))
		if key == "" {
			return "", usagef("the environment variable %s is not set or empty", env)
		}
		return api.Secret(key), nil
	case stdin:
		b, err := io.ReadAll(io.LimitReader(a.in, maxKey+1))
		if err != nil {
			return "", err
		}
		key := strings.TrimSpace(string(b))
		if key == "" || len(b) > maxKey {
			return "", usagef("standard input held no key of 1 to %d bytes", maxKey)
		}
		return api.Secret(key), nil
	}
	return "", nil
}
