// SPDX-License-Identifier: Apache-2.0

// Command peer is the program at both ends of the benchmarks: a client that is
// the same inside and outside of a sandbox, and a plain reverse proxy and a
// plain relay as the floor that a gateway in Go can be held to.
//
//	peer client                          jobs as JSON lines on stdin, results on stdout
//	peer proxy LISTEN TARGET CERT KEY [ROOTS]    TLS in front, parse and key swap, clear or TLS behind
//	peer relay LISTEN TARGET             bytes in both directions
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 2 && os.Args[1] == "client":
		err = client(os.Stdin, os.Stdout)
	case len(os.Args) == 6 && os.Args[1] == "proxy":
		err = proxy(os.Args[2], os.Args[3], os.Args[4], os.Args[5], "")
	case len(os.Args) == 7 && os.Args[1] == "proxy":
		err = proxy(os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6])
	case len(os.Args) == 4 && os.Args[1] == "relay":
		err = relay(os.Args[2], os.Args[3])
	default:
		err = fmt.Errorf("usage: peer client | peer proxy LISTEN TARGET CERT KEY [ROOTS] | peer relay LISTEN TARGET")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}
