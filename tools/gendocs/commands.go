// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// commands asks the programs for their help, command by command.
func commands(bin string) (string, error) {
	var b strings.Builder
	b.WriteString("# Command line\n\nFlags that every command has are listed under `ringfence` alone.\n")
	if err := command(&b, filepath.Join(bin, "ringfence"), nil); err != nil {
		return "", err
	}
	text, err := ask(filepath.Join(bin, "ringfenced"), "-h")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\n## ringfenced\n\nThe daemon. It runs as root; `SIGTERM` leaves running sandboxes to the next daemon, `SIGINT` stops them too.\n\n```text\n%s\n```\n", text)
	return b.String(), nil
}

func command(b *strings.Builder, program string, path []string) error {
	text, err := ask(program, append(append([]string{}, path...), "--help")...)
	if err != nil {
		return err
	}
	if len(path) > 0 {
		text, _, _ = strings.Cut(text, "\n\nGlobal Flags:")
	}
	fmt.Fprintf(b, "\n## %s\n\n```text\n%s\n```\n", strings.Join(append([]string{"ringfence"}, path...), " "), text)
	if !strings.Contains(text, " [command]") {
		return nil
	}
	// The shell completion of a command that has commands lists these.
	list, err := ask(program, append(append([]string{"__complete"}, path...), "")...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		name, _, ok := strings.Cut(line, "\t")
		if !ok || name == "help" {
			continue
		}
		if err := command(b, program, append(path[:len(path):len(path)], name)); err != nil {
			return err
		}
	}
	return nil
}

// ask runs a program in an environment that no setting of the caller reaches.
func ask(program string, args ...string) (string, error) {
	abs, err := filepath.Abs(program)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(abs, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NO_COLOR=1", "HOME=/nonexistent", "COLUMNS=100"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " \t")
	}
	return strings.Join(lines, "\n"), nil
}
