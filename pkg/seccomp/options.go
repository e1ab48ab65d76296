// SPDX-License-Identifier: Apache-2.0

package seccomp

// Options widens the filter. The zero value is the strictest filter.
type Options struct {
	// AllowUnix permits socket(AF_UNIX) and datagram socket pairs. Without it
	// only connected stream and seqpacket pairs can be made (Node and Python
	// need those for their children); a datagram pair is refused because it
	// can still send to a path.
	AllowUnix bool
	// AllowMemfd permits memfd_create, memfd_secret and execveat of a bare
	// descriptor. JIT compilers, Wayland and Go's tests want it; without it
	// running a program that has no path is harder, not impossible.
	AllowMemfd bool
	// AllowNestedFilters permits the agent to install further seccomp filters
	// on itself (browsers, Node, systemd tools). A filter with a listener is
	// refused in any case.
	AllowNestedFilters bool
	// AllowMark permits reading a socket's mark. The gateway does: it learns
	// from it which process is at the other end (see bpf/client.h). In a
	// sandbox it would tell that process's number on the host.
	AllowMark bool
}

// Default is what the "default" profile asks for.
func Default() Options { return Options{AllowMemfd: true, AllowNestedFilters: true} }

// Coding is what the "coding" profile asks for: local unix sockets as well,
// which stay inside because the sandbox has its own mounts.
func Coding() Options {
	return Options{AllowUnix: true, AllowMemfd: true, AllowNestedFilters: true}
}

// Strict is what the "strict" profile asks for: the zero value.
func Strict() Options { return Options{} }
