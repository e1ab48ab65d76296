// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/profiles/policies"
)

// packPrefix marks the name of a pack where a file has the same name.
const packPrefix = "pack:"

func (a *app) policyPacksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "packs [NAME]",
		Short: "List the policy packs that ship with Ringfence, or print one",
		Long: "List the packs that `ringfence policy apply NAME` takes, or print the document of one:\n" +
			"to read it, or to copy it and change the copy.",
		Example: "  ringfence policy packs\n  ringfence policy packs coding-agent > my-agent.yaml",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, name []string) error {
			if len(name) == 1 {
				p, err := findPack(name[0])
				if err != nil {
					return err
				}
				if a.json() {
					return show.JSON(a.out, packRow{p.Name, p.Description, p.Text})
				}
				_, err = fmt.Fprint(a.out, p.Text)
				return err
			}
			return a.listPacks()
		},
		ValidArgsFunction: completePacks,
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// packRow is a pack in JSON, with its text where one is asked for.
type packRow struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Text        string `json:"text,omitempty"`
}

func (a *app) listPacks() error {
	packs, err := policies.All()
	if err != nil {
		return err
	}
	list, rows := []packRow{}, [][]string{}
	for _, p := range packs {
		list = append(list, packRow{Name: p.Name, Description: p.Description})
		rows = append(rows, []string{p.Name, p.Description})
	}
	if a.json() {
		return show.JSON(a.out, list)
	}
	return show.Table(a.out, []string{"NAME", "WHAT IT IS FOR"}, rows)
}

func completePacks(_ *cobra.Command, done []string, _ string) ([]string, cobra.ShellCompDirective) {
	packs, err := policies.All()
	if err != nil || len(done) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range packs {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeApply offers the packs that begin like what is typed, and files where
// none does.
func completeApply(_ *cobra.Command, given []string, typed string) ([]string, cobra.ShellCompDirective) {
	packs, err := policies.All()
	if err != nil {
		return nil, cobra.ShellCompDirectiveDefault
	}
	var names []string
	for _, p := range packs {
		name := p.Name
		if strings.HasPrefix(typed, packPrefix) {
			name = packPrefix + name
		}
		if strings.HasPrefix(name, typed) && !slices.Contains(given, name) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveDefault
}

// findPack is for those who said that they mean a pack.
func findPack(name string) (policies.Pack, error) {
	p, ok, err := policies.Find(strings.TrimPrefix(name, packPrefix))
	if err == nil && !ok {
		err = usagef("no pack is named %q; `ringfence policy packs` lists them", name)
	}
	return p, err
}

// packNamed says whether an argument of apply means a pack: pack:NAME does, and
// NAME does where no file has that name. If both are there, neither is taken.
func packNamed(arg string) (p policies.Pack, ok bool, err error) {
	if strings.HasPrefix(arg, packPrefix) {
		p, err = findPack(arg)
		return p, err == nil, err
	}
	if p, ok, err = policies.Find(arg); err != nil || !ok {
		return p, false, err
	}
	if _, err := os.Lstat(arg); !errors.Is(err, fs.ErrNotExist) {
		return p, false, usagef("%q is a pack, and something here has that name too: write %s%s or ./%s", arg, packPrefix, arg, arg)
	}
	return p, true, nil
}

// packsOf takes the packs out of the arguments of apply. A scope is for packs
// alone: a file says itself whom it is for.
func packsOf(arguments []string, forScope string) (packs []policies.Pack, rest []string, err error) {
	for _, arg := range arguments {
		p, ok, err := packNamed(arg)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			rest = append(rest, arg)
			continue
		}
		packs = append(packs, p)
	}
	if forScope == "" {
		return packs, rest, nil
	}
	if len(rest) > 0 {
		return nil, nil, usagef("--scope is for packs, and %q is none: write the scope into the document", rest[0])
	}
	sel, err := scope.ParseSelector(forScope)
	if err != nil {
		return nil, nil, usagef("--scope: %v", err)
	}
	for i := range packs {
		packs[i] = packs[i].For(sel)
	}
	return packs, rest, nil
}
