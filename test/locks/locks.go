// SPDX-License-Identifier: Apache-2.0

// Package locks is the table of the ways out of a sandbox and of what closes
// each: docs/THREATS.md shows it, and TestLocks of test/escapes takes it at its
// word, lock by lock.
package locks

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// Layer is one part of the product that stops something.
type Layer uint8

// The layers. Which kernel has them is in the table below.
const (
	Address   Layer = iota + 1 // connect4, connect6, sendmsg4, sendmsg6
	Elsewhere                  // what these do in the machine's own network namespace
	Socket                     // sock_create
	Egress                     // every packet
	Unix                       // connect_unix, sendmsg_unix
	Network                    // own network namespace, in which every address is the gateway's
	View                       // own mount and process namespaces
	Shared                     // own IPC namespace
	Seccomp                    // the system call filter
	Landlock                   // files, and processes outside the domain
	Scopes                     // Landlock: signals and abstract unix sockets
	UnixPaths                  // Landlock: unix sockets by path
	Rights                     // an unprivileged uid without capabilities
	Gateway                    // the gateway's decision
	Resolver                   // its judgement of what a name resolves to
	Fence                      // the programs on the gateway's own cgroup
	Launch                     // how the keeper and init begin and end a sandbox
)

// layer is what the document says of one. since is the first kernel with it;
// empty where the node does not start without.
type layer struct {
	name, does, since string
}

var layers = map[Layer]layer{
	Address:   {"address hooks", "programs on the sandbox's cgroup judge where a socket connects or sends: EACCES at once", newest(kernel.HookConnect4, kernel.HookConnect6, kernel.HookSendmsg4, kernel.HookSendmsg6)},
	Elsewhere: {"hooks elsewhere", "in the machine's own network namespace the address hooks let nothing pass, whatever policy says", newest(kernel.HookConnect4, kernel.HookConnect6, kernel.HookSendmsg4, kernel.HookSendmsg6)},
	Socket:    {"socket hook", "a program there judges type and protocol of each IPv4 and IPv6 socket that is made", newest(kernel.HookSockCreate)},
	Egress:    {"egress", "a program there judges every packet once more, by what it carries", newest(kernel.HookEgress)},
	Unix:      {"unix hooks", "programs there judge unix sockets, all or none", newest(kernel.HookConnectUnix, kernel.HookSendmsgUnix)},
	Network:   {"netns", "an own network namespace without any interface but `lo`; every address in it is the gateway's", ""},
	View:      {"view", "own mount and process namespaces: what is not shown has no name", ""},
	Shared:    {"ipcns", "an own IPC namespace", ""},
	Seccomp:   {"seccomp", "the system call filter", ""},
	Landlock:  {"Landlock", "files by path; reaching into processes outside", confine.LandlockSince(requiredABI)},
	Scopes:    {"Landlock scopes", "signals and abstract unix sockets stay inside", confine.LandlockSince(6)},
	UnixPaths: {"Landlock unix", "unix sockets by path", confine.LandlockSince(9)},
	Rights:    {"rights", "an unprivileged uid, no capabilities, no_new_privs. The uid is the sandbox's own where root launches; where a member does it is the member's, and what belongs to the member has one lock less than is counted", ""},
	Gateway:   {"gateway", "the gateway decides on its own snapshot of policy", ""},
	Resolver:  {"resolver", "the gateway judges every address that a name resolves to, and dials exactly one of them", ""},
	Launch:    {"launch", "how the keeper and init begin and end a sandbox", ""},
	Fence:     {"gateway's fence", "the address hooks on the gateway's own cgroup", newest(kernel.HookConnect4, kernel.HookConnect6)},
}

// requiredABI is the Landlock ABI that the default profile requires: below it
// there is no sandbox, and the table begins there.
const requiredABI = 2

func newest(hooks ...kernel.Hook) string {
	out := hooks[0].Since()
	for _, h := range hooks[1:] {
		if before(out, h.Since()) {
			out = h.Since()
		}
	}
	return out
}

// String is the name in the document.
func (l Layer) String() string { return layers[l].name }

// Since is the first kernel with the layer, "" where every one has it on which
// the node starts.
func (l Layer) Since() string { return layers[l].since }

// Lock is what stops a way by itself, with every other lock of the way open.
// Most are one layer. Network and Gateway together are one: the namespace leads
// everything to the gateway, and the gateway refuses.
type Lock struct {
	Layers []Layer
	// Tests show it alone where the attempts of the row do not: PACKAGE.TestName.
	Tests []string
}

func (l Lock) String() string {
	names := make([]string, len(l.Layers))
	for i, x := range l.Layers {
		names[i] = x.String()
	}
	return strings.Join(names, " + ")
}

// On says whether a kernel has all of the lock.
func (l Lock) On(version string) bool {
	return !slices.ContainsFunc(l.Layers, func(x Layer) bool { return before(version, x.Since()) })
}

// Way is one way out, a row of the document.
type Way struct {
	Name     string   // of the test
	Text     string   // what is tried
	Locks    []Lock   // independent of each other
	Attempts []string // of test/escapes/attempts: refused by each lock alone, successful without any
	Tests    []string // further tests of the row: PACKAGE.TestName
	Note     string   // what the reader must know besides
	Closed   bool     // in a profile without unixSockets
}

// Count is the number of locks on a kernel.
func (w *Way) Count(version string) int {
	n := 0
	for _, l := range w.Locks {
		if l.On(version) {
			n++
		}
	}
	return n
}

// Chapter is one table of the document.
type Chapter struct {
	Title string
	Ways  []Way
}

// Chapters is the whole.
func Chapters() []Chapter {
	return []Chapter{{"Network", network()}, {"Processes and the kernel", processes()}, {"Files", files()}}
}

// Ways is every row.
func Ways() []Way {
	var out []Way
	for _, c := range Chapters() {
		out = append(out, c.Ways...)
	}
	return out
}

// Tiers are the kernels at which a count can change, oldest first: the first is
// the oldest on which the default profile runs.
func Tiers() []string {
	floor := confine.LandlockSince(requiredABI)
	out := []string{floor}
	for _, l := range layers {
		if before(floor, l.since) && !slices.Contains(out, l.since) {
			out = append(out, l.since)
		}
	}
	slices.SortFunc(out, compare)
	return out
}

// before says that a is an older kernel than b; "" is older than all.
func before(a, b string) bool { return compare(a, b) < 0 }

func compare(a, b string) int { return slices.Compare(numbers(a), numbers(b)) }

func numbers(version string) (out []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}

// all makes one lock of each layer.
func all(ls ...Layer) []Lock {
	out := make([]Lock, len(ls))
	for i, l := range ls {
		out[i] = Lock{Layers: []Layer{l}}
	}
	return out
}

// steered is the way everything takes that leaves through the namespace.
var steered = Lock{Layers: []Layer{Network, Gateway}}

// flow are the locks of whatever connects or sends to an address.
func flow() []Lock { return append(all(Address, Egress), steered) }

// shown is a lock that tests show by themselves.
func shown(l Layer, tests ...string) []Lock { return []Lock{{Layers: []Layer{l}, Tests: tests}} }
