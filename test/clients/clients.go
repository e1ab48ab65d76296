// SPDX-License-Identifier: Apache-2.0

// Package clients builds the real agents that tests run: programs on the
// official OpenAI, Anthropic and Google libraries for Go and Node, and one on Python's
// standard library. They are unmodified users of those libraries: they take a
// model and a mode from the command line and the key from the usual variable,
// and know nothing of base URLs, proxies or Ringfence.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// ErrMissing says that a tool a client needs is not there; the error names it.
var ErrMissing = errors.New("missing tool")

// Program is one client, ready to run: append a model and a mode to Argv.
type Program struct {
	Name  string
	Argv  []string
	Modes []string
}

// Result is what each client prints.
type Result struct {
	OK        bool   `json:"ok"`
	Text      string `json:"text"`
	Model     string `json:"model"`
	TokensIn  int    `json:"tokens_in"`
	TokensOut int    `json:"tokens_out"`
	Chunks    int    `json:"chunks"`
	Sent      string `json:"sent_sha256"` // of the request body as the client sent it
	Status    int    `json:"status"`
	Code      string `json:"code"`
	Error     string `json:"error"`
}

// ParseResult reads a client's output.
func ParseResult(out []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("client printed %q: %w", out, err)
	}
	return r, nil
}

var (
	openAIModes    = []string{"chat", "chat-stream", "responses", "responses-stream"}
	anthropicModes = []string{"messages", "messages-stream"}
	geminiModes    = []string{"generate", "generate-stream"}
)

// modesOf are what a client of one library can do.
func modesOf(name string) []string {
	switch name {
	case "anthropic-go", "node-anthropic":
		return anthropicModes
	case "genai-go", "node-genai":
		return geminiModes
	}
	return openAIModes
}

// here is this folder in the source tree.
func here() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(file)
}

// BuildGo builds one of the Go clients ("openai-go", "anthropic-go", "genai-go") into dir.
func BuildGo(ctx context.Context, dir, name string) (Program, error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return Program{}, fmt.Errorf("%w: go", ErrMissing)
	}
	bin := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, goTool, "build", "-o", bin, ".")
	cmd.Dir = filepath.Join(here(), name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return Program{}, fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return Program{Name: name, Argv: []string{bin}, Modes: modesOf(name)}, nil
}

// InstallNode installs one of the Node clients ("node-openai",
// "node-anthropic", "node-genai") into dir from its lock file. It needs the npm registry or
// npm's cache.
func InstallNode(ctx context.Context, dir, name string) (Program, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return Program{}, fmt.Errorf("%w: node", ErrMissing)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return Program{}, fmt.Errorf("%w: npm", ErrMissing)
	}
	dst := filepath.Join(dir, name)
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return Program{}, fmt.Errorf("install %s: %w", name, err)
	}
	for _, f := range []string{"package.json", "package-lock.json", "main.mjs"} {
		b, err := os.ReadFile(filepath.Join(here(), name, f))
		if err != nil {
			return Program{}, fmt.Errorf("install %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dst, f), b, 0o644); err != nil {
			return Program{}, fmt.Errorf("install %s: %w", name, err)
		}
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0", "--fetch-timeout=20000")
	cmd.Dir = dst
	if out, err := cmd.CombinedOutput(); err != nil {
		return Program{}, fmt.Errorf("%w: packages of %s (npm ci: %w: %s)", ErrMissing, name, err, out)
	}
	return Program{Name: name, Argv: []string{node, filepath.Join(dst, "main.mjs")}, Modes: modesOf(name)}, nil
}

// Python is the client on Python's standard library.
func Python() (Program, error) {
	py, err := exec.LookPath("python3")
	if err != nil {
		return Program{}, fmt.Errorf("%w: python3", ErrMissing)
	}
	return Program{Name: "python", Argv: []string{py, filepath.Join(here(), "python", "chat.py")},
		Modes: []string{"chat", "chat-stream", "messages", "messages-stream"}}, nil
}
