// SPDX-License-Identifier: Apache-2.0

//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command ringfence is the operator's tool: it runs programs in sandboxes and
// shows what they did. It holds no rights of its own; the daemon decides by
// the caller's credentials.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
