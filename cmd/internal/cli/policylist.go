// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) policyListCommand() *cobra.Command {
	var byHits, documents bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the rules in force with their hits and kernel memory",
		Long: "List every rule in force (builtin/models is the one that no document has), what it\n" +
			"has in the kernel for all sandboxes together, and\n" +
			"how often it decided since the daemon started: calls that the kernel's hooks let\n" +
			"through or refused by it, and questions, connections, requests and model calls in the\n" +
			"gateway. What the kernel lets through the gateway decides again, so one connection\n" +
			"counts in both. Who is not root sees the rules that apply where it is a viewer.",
		Example: "  ringfence policy list --hits\n  ringfence policy list --documents -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := a.client().PolicyUse(cmd.Context())
			if err != nil {
				return err
			}
			if documents {
				u.Rules = byDocument(u)
			}
			if byHits {
				slices.SortStableFunc(u.Rules, func(a, b api.RuleUse) int {
					return cmp.Compare(b.KernelHits+b.GatewayHits, a.KernelHits+a.GatewayHits)
				})
			}
			if a.json() {
				return show.JSON(a.out, u)
			}
			a.printProblems(u.Problems)
			return a.printUse(u)
		},
	}
	cmd.Flags().BoolVar(&byHits, "hits", false, "most used rules first")
	cmd.Flags().BoolVar(&documents, "documents", false, "sum up the rules of each document")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// byDocument adds up the rules of each document; providers and profiles have
// none. Of Sandboxes the largest stands: one with entries of several rules counts
// once.
func byDocument(u api.PolicyUse) (out []api.RuleUse) {
	at := map[[2]string]int{}
	for _, d := range u.Documents {
		if d.Kind == "Policy" {
			at[[2]string{d.Scope, d.Name}] = len(out)
		}
		out = append(out, api.RuleUse{Rule: d.Name, Scope: d.Scope, Section: "document", Target: strings.TrimSpace(d.Kind + " " + d.InFile())})
	}
	for _, r := range u.Rules {
		doc, _, _ := strings.Cut(r.Rule, "/")
		i, ok := at[[2]string{r.Scope, doc}]
		if !ok {
			i = len(out)
			at[[2]string{r.Scope, doc}] = i
			out = append(out, api.RuleUse{Rule: doc, Scope: r.Scope, Section: "document", Target: "built in"})
		}
		o := &out[i]
		o.Sandboxes = max(o.Sandboxes, r.Sandboxes)
		o.Entries, o.KernelBytes = o.Entries+r.Entries, o.KernelBytes+r.KernelBytes
		o.KernelHits, o.GatewayHits = o.KernelHits+r.KernelHits, o.GatewayHits+r.GatewayHits
	}
	return out
}

// documentsLine says what is in force besides the rules, and what is without any
// document.
func documentsLine(u api.PolicyUse) string {
	kinds := map[string]int{}
	for _, d := range u.Documents {
		kinds[d.Kind]++
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		parts = append(parts, fmt.Sprintf("%d %s", kinds[kind], kind))
	}
	line := "documents: none"
	if len(parts) > 0 {
		line = "documents: " + strings.Join(parts, ", ")
	}
	return line + "; built in are builtin/models, and that what no rule allows is refused"
}

func (a *app) printUse(u api.PolicyUse) error {
	rows := make([][]string, len(u.Rules))
	for i, r := range u.Rules {
		rows[i] = []string{r.Rule, r.Scope, strings.TrimSpace(r.Effect + " " + r.Target), strconv.Itoa(r.Sandboxes), strconv.Itoa(r.Entries),
			strconv.FormatUint(r.KernelBytes, 10), strconv.FormatUint(r.KernelHits, 10), strconv.FormatUint(r.GatewayHits, 10)}
	}
	if err := show.Table(a.out, []string{"RULE", "SCOPE", "WHAT", "SANDBOXES", "ENTRIES", "KERNEL BYTES", "KERNEL HITS", "GATEWAY HITS"}, rows); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(a.out, show.Text(documentsLine(u), 1000))
	entries, tables := 0, uint64(0)
	for _, r := range u.Rules {
		entries, tables = entries+r.Entries, tables+r.KernelBytes
	}
	_, _ = fmt.Fprintf(a.out, "revision %d; counted since %s\n", u.Revision, u.Since.Local().Format("2006-01-02 15:04:05"))
	if u.NameBytes == 0 || u.AddressBytes == 0 {
		_, _ = fmt.Fprintf(a.out, "this kernel does not tell the memory of entries (Linux 6.4 does)\n")
		return nil
	}
	maps := ""
	if u.KernelBytes > 0 { // who sees a part of the node is not told of all
		maps = fmt.Sprintf("maps %d KiB in all; ", u.KernelBytes/1024)
	}
	line := fmt.Sprintf("kernel: %s%s of rules take %d KiB (%d bytes for a name, %d for an address)",
		maps, plural(entries, "entry", "entries"), tables/1024, u.NameBytes, u.AddressBytes)
	if u.Sandboxes > 0 {
		line += fmt.Sprintf(", %d bytes for each of %s", tables/uint64(u.Sandboxes), plural(u.Sandboxes, "sandbox", "sandboxes"))
	}
	_, _ = fmt.Fprintln(a.out, line)
	return nil
}
