// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

func (a *app) policyExportCommand() *cobra.Command {
	var revision uint64
	cmd := &cobra.Command{
		Use:   "export [DIR|-]",
		Short: "Write the documents in force as YAML that policy apply takes",
		Long: "Write the documents in force on the node, or those kept as of a revision: to standard\n" +
			"output, or one file each into a directory that is made or has none of these files yet.\n" +
			"Keys of providers and documents of single sandboxes are not among them. Needs root, or admin of\norg:*.",
		Example: "  ringfence policy export > policy.yaml\n  ringfence policy export ./policies --revision 12",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, to []string) error {
			res, err := a.client().StoredDocuments(cmd.Context(), "", revision)
			if err != nil {
				return err
			}
			a.warnTwice(res.Documents)
			switch {
			case a.json():
				return show.JSON(a.out, res)
			case len(to) == 0 || to[0] == "-":
				_, err = fmt.Fprint(a.out, yamlStream(res.Documents))
				return err
			}
			return a.exportTo(to[0], res)
		},
	}
	cmd.Flags().Uint64Var(&revision, "revision", 0, "as of this revision (default: what is in force)")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// exportTo writes with the caller's rights and replaces nothing.
func (a *app) exportTo(dir string, res api.StoredDocuments) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	used := map[string]int{}
	for _, d := range res.Documents {
		name := exportName(d)
		if used[name]++; used[name] > 1 {
			name = fmt.Sprintf("%s-%d.yaml", name[:len(name)-len(".yaml")], used[name])
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("%w; nothing is replaced: name another directory", err)
		}
		_, err = f.WriteString(yamlStream([]api.StoredDocument{d}))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(a.out, "%s of revision %d in %s\n", plural(len(res.Documents), "document", "documents"), res.Revision, show.Text(dir, 500))
	return err
}

// warnTwice: policy apply knows documents by kind and name, while allow --always
// gives the same name to rules for several scopes.
func (a *app) warnTwice(docs []api.StoredDocument) {
	seen := map[string]int{}
	for _, d := range docs {
		key := d.Kind + " " + d.Name
		if seen[key]++; seen[key] == 2 {
			_, _ = fmt.Fprintf(a.err, "ringfence: several scopes have a %s: policy apply takes them only under different names\n", show.Text(key, 200))
		}
	}
}
