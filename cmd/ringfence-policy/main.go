// SPDX-License-Identifier: Apache-2.0

// Command ringfence-policy is ringfence with what evaluates the conditions of
// policy documents and with the terminal view, which take longer to start than a
// sandbox does. Ringfence becomes it for the commands that need them.
package main

import (
	"os"

	"github.com/ringfence/ringfence/cmd/internal/cli"
	"github.com/ringfence/ringfence/cmd/internal/top"
	_ "github.com/ringfence/ringfence/pkg/policy/celexpr"
)

// version is set by the linker (-X main.version=...) for releases.
var version = ""

func main() { os.Exit(cli.Main(version, top.Run)) }
