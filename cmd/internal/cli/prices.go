// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/price"
)

func (a *app) pricesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prices",
		Short: "Say what models cost",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to do: ringfence prices import|list|remove")
		},
	}
	cmd.AddCommand(a.pricesImportCommand(), a.pricesListCommand(), a.pricesRemoveCommand())
	return cmd
}

func (a *app) pricesListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tables of prices in use",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := a.client().Prices(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, res)
			}
			rows := make([][]string, len(res.Tables))
			for i, t := range res.Tables {
				rows[i] = []string{t.Version, t.Effective.UTC().Format(time.RFC3339), strconv.Itoa(t.Models), t.Author, t.Source}
			}
			return show.Table(a.out, []string{"VERSION", "EFFECTIVE", "MODELS", "BY", "SOURCE"}, rows)
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) pricesRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove VERSION",
		Short:   "Take a table of prices out of use (root, or admin of org:*)",
		Long:    "Take a table of prices out of use. What was priced by it stays as it is.",
		Example: "  ringfence prices remove 2026-11",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			if err := a.client().RemovePrices(cmd.Context(), names[0]); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(a.out, "prices %s are not in use any more\n", show.Text(names[0], 100))
			return nil
		},
	}
}

// importing are the flags of an import.
type importing struct {
	format, version, effective, source string
	providers                          []string
	free, dryRun                       bool
}

func (a *app) pricesImportCommand() *cobra.Command {
	var o importing
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Put a table of prices into use (root, or admin of org:*)",
		Long: "Put a table of prices into use: one of your own, LiteLLM's\n" +
			"model_prices_and_context_window.json or the api.json of models.dev. Of several tables the\n" +
			"one that took effect last wins, for each model. No table comes with Ringfence, and none is\n" +
			"fetched: save the list to FILE (- is standard input) and look at it. Prices are exact; one that\n" +
			"is finer than a billionth of a dollar per million tokens is rounded up.\n\n" +
			"The lists of others say neither since when they hold nor what is free, so that is asked:\n" +
			"models whose prices are all zero are left out without --free.",
		Example: "  ringfence prices import prices.yaml\n" +
			"  ringfence prices import model_prices_and_context_window.json --format litellm --providers openai,anthropic\n" +
			"  ringfence prices import api.json --format models.dev --effective 2026-11-01 --dry-run",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error { return a.importPrices(cmd, names[0], &o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "ringfence", "form of FILE: ringfence, litellm, models.dev")
	f.StringVar(&o.version, "version", "", "name of the table in records (default: the format and a hash of FILE)")
	f.StringVar(&o.effective, "effective", "", "since when the prices hold, as 2026-11-01 (default: now)")
	f.StringVar(&o.source, "source", "", "where the list was read (default: FILE)")
	f.StringSliceVar(&o.providers, "providers", nil, "only these kinds of providers (default: all)")
	f.BoolVar(&o.free, "free", false, "take models whose prices are all zero, too")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the table, and put nothing into use")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

func (a *app) importPrices(cmd *cobra.Command, file string, o *importing) error {
	text, err := a.readPrices(file)
	if err != nil {
		return err
	}
	own := o.format == "ringfence"
	if own {
		for _, name := range []string{"version", "effective", "source", "providers", "free"} {
			if cmd.Flags().Changed(name) {
				return usagef("--%s is for lists of others: a table of your own says it itself", name)
			}
		}
		if _, err := price.Parse(file, text); err != nil {
			return err
		}
	} else if text, err = a.convert(file, text, o); err != nil {
		return err
	}
	if o.dryRun {
		_, err := a.out.Write(text)
		return err
	}
	res, err := a.client().AddPrices(cmd.Context(), api.PricesRequest{File: file, Text: string(text)})
	if err != nil {
		return err
	}
	if a.json() {
		return show.JSON(a.out, res)
	}
	_, _ = fmt.Fprintf(a.out, "prices %s are in use: %s, from %s on\n", show.Text(res.Version, 100), plural(res.Models, "model", "models"), res.Effective.UTC().Format(time.RFC3339))
	return nil
}

// readPrices reads the file, or standard input.
func (a *app) readPrices(file string) ([]byte, error) {
	in := io.Reader(a.in)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, price.MaxTable+1))
	if err == nil && len(text) > price.MaxTable {
		err = fmt.Errorf("%s is larger than %d MiB", file, price.MaxTable>>20)
	}
	return text, err
}

// convert makes a table of another list, and says what of it was not taken.
func (a *app) convert(file string, text []byte, o *importing) ([]byte, error) {
	read, ok := map[string]func([]byte, price.ImportOptions) (price.Imported, error){"litellm": price.ImportLiteLLM, "models.dev": price.ImportModelsDev}[o.format]
	if !ok {
		return nil, usagef("unknown --format %q: ringfence, litellm, models.dev", o.format)
	}
	opt := price.ImportOptions{Version: o.version, Source: o.source, Providers: o.providers, Free: o.free, Effective: time.Now().UTC().Truncate(time.Second)}
	if opt.Source == "" {
		opt.Source = file
	}
	if opt.Version == "" {
		sum := sha256.Sum256(text)
		opt.Version = o.format + "-" + hex.EncodeToString(sum[:6])
	}
	if o.effective != "" {
		day, err := time.Parse(time.DateOnly, o.effective)
		if err != nil {
			return nil, usagef("--effective %q is no day such as 2026-11-01", o.effective)
		}
		opt.Effective = day
	}
	res, err := read(text, opt)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	left := 0
	for _, s := range res.Skipped {
		if !s.Taken {
			left++
		}
		if o.dryRun {
			_, _ = fmt.Fprintf(a.err, "%s: %s\n", show.Text(s.Name, 200), show.Text(s.Why, 500))
		}
	}
	if left > 0 && !o.dryRun {
		_, _ = fmt.Fprintf(a.err, "%s left out; --dry-run says why\n", plural(left, "model was", "models were"))
	}
	return res.Table.AppendYAML(nil), nil
}
