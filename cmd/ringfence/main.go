// SPDX-License-Identifier: Apache-2.0

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command ringfence is the operator's tool: it runs programs in sandboxes and
// shows what they did. It holds no rights of its own; the daemon decides by
// the caller's credentials. It starts quickly; commands that evaluate policy
// documents, and top, are done by ringfence-policy, see package cli.
package main

import (
	"os"

	"github.com/ringfence/ringfence/cmd/internal/cli"
)

// version is set by the linker (-X main.version=...) for releases.
var version = ""

func main() { os.Exit(cli.Main(version, nil)) }
