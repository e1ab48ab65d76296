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
			a.Event, a.Silent = "none", silent[a.Layer]
		}
		if a.As == "" {
			a.As = asUser
		}
	}
	return out
}

func errnos(names ...string) Expect { return Expect{Errnos: names} }

func contained() Expect { return Expect{Contained: true} }

// silent says, by the layer that refuses, why the refusal leaves no record of
// its own. That the program ran which tried it is recorded for every attempt.
var silent = map[string]string{
	"mount":        "the sandbox's view has no such thing, or has it read-only: the kernel answers before any hook that could record",
	"netns":        "the network namespace has no such thing: the kernel answers before any hook that could record",
	"pidns":        "the pid namespace has no such process, or shields its first one: no hook is asked",
	"ipcns":        "the ipc namespace has no such object: no hook is asked",
	"capabilities": "a check of the kernel that no hook records",
	"dumpable":     "a check of the kernel that no hook records",
	"rlimits":      "a check of the kernel that no hook records",
	"no-new-privs": "the program runs, without gaining anything: there is no refusal",
	"environment":  "nothing is there to be refused",
	"launch":       "nothing is there to be refused",
	"none":         "it is permitted: it harms the sandbox alone",
	"seccomp":      "SECCOMP_RET_ERRNO is not recorded unless the filter asks the kernel's audit log for it",
}
