// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// Who the control runs as.
const (
	asRoot = "root"
	asUser = "user"
)

// Kinds of launch that a row may leave out.
const (
	rootInside = "root-inside"  // uid 0 in a user namespace
	unixOpen   = "unix-sockets" // a profile that allows unix sockets
	readOnly   = "workspace-ro"
)

// all returns every attempt; names are unique.
func all() []*Attempt {
	out := slices.Concat(
		addressAttempts(), datagramAttempts(), socketAttempts(), unixAttempts(),
		fileAttempts(), writeAttempts(), setIDAttempts(), gitAttempts(), kernelFileAttempts(),
		mountAttempts(), namespaceAttempts(), initAttempts(), processAttempts(), identityAttempts(),
		ipcAttempts(), terminalAttempts(), privilegedAttempts(), environmentAttempts(), abiAttempts(),
	)
	for _, a := range out {
		if a.Event == "" {
			a.Event = "none"
		}
		if a.As == "" {
			a.As = asUser
		}
	}
	return out
}

func errnos(names ...string) Expect { return Expect{Errnos: names} }

func contained() Expect { return Expect{Contained: true} }
