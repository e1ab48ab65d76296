// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, apply, remove, show and roll back policy documents",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			return usagef("name what to do: ringfence policy check|apply|delete|wait|show|list|get|history|diff|rollback|export|packs|schema|test|who-can|prove|lint|learn")
		},
	}
	cmd.AddCommand(a.policyCheckCommand(), a.policyApplyCommand(), a.policyDeleteCommand(), a.policyWaitCommand(), a.policyShowCommand(), a.policyListCommand(), a.policyPacksCommand(), a.policySchemaCommand(), a.policyTestCommand(), a.whoCanCommand(),
		a.policyGetCommand(), a.policyHistoryCommand(), a.policyDiffCommand(), a.policyRollbackCommand(), a.policyExportCommand(), a.policyProveCommand(), a.policyLintCommand(), a.policyLearnCommand())
	return cmd
}

func (a *app) policyCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check FILE|DIR...",
		Short: "Report every mistake in documents, with file, line and column",
		Long: "Report every mistake in policy, profile, provider, tool server and access documents. The\n" +
			"files, and every *.yaml and *.yml of a directory, are read together, without the daemon;\n" +
			"- is standard input. Tool servers are checked, and noted: they do not come into force in\n" +
			"this version. Exit code 1 when there is a mistake.",
		Example: "  ringfence policy check policy.yaml\n  ringfence policy check -o json /etc/ringfence/policy",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, files []string) error {
			if err := toEvaluate(); err != nil {
				return err
			}
			var docs []policy.Document
			var problems []policy.Problem
			files, err := documentFiles(files)
			if err != nil {
				return err
			}
			for _, name := range files {
				text, err := a.readDocument(name)
				if err != nil {
					return err
				}
				d, p := a.checkDocuments(name, text)
				if len(d)+len(p) == 0 {
					p = []policy.Problem{{File: name, Line: 1, Col: 1, Msg: "no document"}}
				}
				docs, problems = append(docs, d...), append(problems, p...)
			}
			if len(problems) == 0 {
				_, problems = policy.Compile(0, docs)
			}
			return a.printCheck(api.NewCheckResult(problems), len(docs))
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// checkDocuments reads what may come into force, and tool servers, which may not
// yet: that is told, and no mistake of theirs.
func (a *app) checkDocuments(name string, text []byte) ([]policy.Document, []policy.Problem) {
	docs, problems := policy.ParseWhole(name, text)
	for i := range docs {
		for _, p := range policy.Unenforced(&docs[i]) {
			if docs[i].Kind != policy.KindToolServer {
				problems = append(problems, p)
				continue
			}
			a.noteUnenforced(p)
		}
	}
	return docs, problems
}

// noteUnenforced tells of what is taken here and not where it would come into
// force.
func (a *app) noteUnenforced(p policy.Problem) {
	_, _ = fmt.Fprintln(a.err, show.Text("note: policy apply refuses this: "+p.Error(), 1000))
}

// documentFiles puts the files in place of a directory that the daemon would
// read there.
func documentFiles(names []string) (out []string, err error) {
	for _, name := range names {
		st, err := os.Stat(name)
		if name == "-" || err != nil || !st.IsDir() { // an error is told where the file is read
			out = append(out, name)
			continue
		}
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		before := len(out)
		for _, e := range entries {
			ext := filepath.Ext(e.Name())
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
				out = append(out, filepath.Join(name, e.Name()))
			}
		}
		if len(out) == before {
			return nil, fmt.Errorf("%s holds no *.yaml", name)
		}
	}
	return out, nil
}

func (a *app) printCheck(res api.CheckResult, docs int) error {
	if a.json() {
		if err := show.JSON(a.out, res); err != nil {
			return err
		}
	} else {
		for _, p := range res.Problems {
			_, _ = fmt.Fprintln(a.out, show.Text(problemLine(p), 1000))
		}
		if res.OK {
			_, _ = fmt.Fprintf(a.out, "%s, no mistakes\n", plural(docs, "document", "documents"))
		}
	}
	if !res.OK {
		return quiet(exitGeneric)
	}
	return nil
}

func problemLine(p api.Problem) string {
	return policy.Problem{File: p.File, Line: p.Line, Col: p.Col, Msg: p.Msg, Hint: p.Hint}.Error()
}

func (a *app) policyShowCommand() *cobra.Command {
	var sandbox string
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Show the documents in force",
		Long:    "Show the documents in force on the node, as far as they apply where you are a viewer,\nor for one sandbox.",
		Example: "  ringfence policy show --sandbox web",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := a.client().Policy(cmd.Context(), sandbox)
			if err != nil {
				return err
			}
			if a.json() {
				return show.JSON(a.out, v)
			}
			rows := make([][]string, len(v.Documents))
			for i, d := range v.Documents {
				rows[i] = []string{d.Kind, d.Name, d.Scope, d.File}
			}
			if err := show.Table(a.out, []string{"KIND", "NAME", "SCOPE", "FILE"}, rows); err != nil {
				return err
			}
			_, _ = fmt.Fprintf(a.out, "revision %d\n", v.Revision)
			a.printProblems(v.Problems)
			if len(v.Problems) > 0 {
				return quiet(exitDegraded)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&sandbox, "sandbox", "", "what this sandbox is under")
	_ = cmd.RegisterFlagCompletionFunc("sandbox", a.completeSandboxes)
	a.outputFlag(cmd, "table", "json")
	return cmd
}

// printProblems tells on standard error what of the documents is not in force.
func (a *app) printProblems(problems []api.Problem) {
	for _, p := range problems {
		line := "ringfence: " + problemLine(p)
		if p.Stays != "" {
			line += "; " + p.Stays
		}
		_, _ = fmt.Fprintln(a.err, show.Text(line, 1000))
	}
}

// maxDocument bounds a profile or policy file.
const maxDocument = 1 << 20

// readDocument reads a file with the caller's rights; "-" is standard input. A
// FIFO or device would hang and is refused.
func (a *app) readDocument(name string) ([]byte, error) {
	f := a.in
	if name != "-" {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		f = os.NewFile(uintptr(fd), name)
		defer f.Close() //nolint:errcheck // only read
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is not a regular file", name)
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxDocument {
		return nil, fmt.Errorf("%s is over %d bytes", name, maxDocument)
	}
	return b, nil
}

// isFileName tells FILE from NAME in --profile: a path or a YAML file name.
func isFileName(s string) bool {
	return strings.ContainsRune(s, '/') || strings.HasSuffix(s, ".yaml") || strings.HasSuffix(s, ".yml")
}
