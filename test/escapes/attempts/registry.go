// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

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
		addressAttempts(), datagramAttempts(), forgedAttempts(), socketAttempts(), unixAttempts(),
		fileAttempts(), writeAttempts(), setIDAttempts(), gitAttempts(), kernelFileAttempts(),
		mountAttempts(), namespaceAttempts(), initAttempts(), processAttempts(), identityAttempts(),
		ipcAttempts(), terminalAttempts(), privilegedAttempts(), environmentAttempts(), abiAttempts(),
	)
	for _, a := range out {
		if a.Event == "" {
			a.Event = "refusal"
		}
		if why := silent[a.Layer]; why != "" && a.Event == "refusal" {
			a.Event, a.Silent = "none", why
		}
		if why := silentRows[a.Name]; why != "" {
			a.Event, a.Silent = "none", why
		}
		if a.Event == "refusal" && a.Trace == "" {
			a.Trace = callOf(a)
		}
		if a.As == "" {
			a.As = asUser
		}
	}
	return out
}

// callOf is the system call that a row is about, where its name says it.
func callOf(a *Attempt) string {
	group, rest, _ := strings.Cut(a.Name, "-")
	switch group {
	case "ns":
		call, _, _ := strings.Cut(rest, "-")
		if call == "setns" {
			return "" // the namespace of a host process cannot even be opened
		}
		return call
	case "call", "future":
		for _, more := range []string{"-high-bits", "-exec", "-mm", "-listener"} {
			rest = strings.TrimSuffix(rest, more)
		}
		return strings.ReplaceAll(rest, "-", "_")
	}
	return ""
}

func errnos(names ...string) Expect { return Expect{Errnos: names} }

func contained() Expect { return Expect{Contained: true} }

// silent says, by the layer, why there is no refusal to be recorded. That the
// program ran which tried it is recorded for every attempt.
var silent = map[string]string{
	"no-new-privs": "the program runs, without gaining anything: there is no refusal",
	"environment":  "nothing is there to be refused",
	"launch":       "nothing is there to be refused",
	"none":         "it is permitted: it harms the sandbox alone",
}

// silentRows are single attempts of which the same is true.
var silentRows = map[string]string{
	"net-route-add": "the call succeeds; the refusal is in the answer that is read from the socket",
}
