// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"io"
	"iter"
	"os"
	"time"
)

// Backend does what callers ask. The server has authorised the caller and
// resolved names before it calls: every id it passes is the full id of a
// sandbox that Sandboxes listed. Methods are called concurrently and stop when
// their context ends. Errors of type [*Error] choose the code of the answer.
type Backend interface {
	// Access is who may do what now. It is asked for every request of a caller
	// that is not root, and names nobody of whom it is not certain.
	Access() Access

	// InSandbox reports whether the peer lives in (or below) the cgroup of a
	// sandbox. An error refuses the caller.
	InSandbox(ctx context.Context, c *Caller) (bool, error)

	Version(ctx context.Context) (VersionInfo, error)
	Status(ctx context.Context) (Status, error)

	// Sandboxes lists living sandboxes and, for a while, those that ended,
	// in a stable order.
	Sandboxes(ctx context.Context) ([]Sandbox, error)
	// Owner returns who launched the sandbox with that id and its principal,
	// also for sandboxes that ended long ago if the Backend still knows.
	Owner(ctx context.Context, id string) (uid uint32, scope string, ok bool)

	// Launch establishes a sandbox. It returns when the agent was started, or
	// with a *LaunchFailure and nothing left behind. ctx ends when the client
	// goes away before that; afterwards the sandbox lives by its own rules.
	// The Backend owns f from the call on and closes it, also on failure.
	Launch(ctx context.Context, c *Caller, r *LaunchRequest, f *Files) (Session, error)
	// Exec runs one more program in a sandbox, likewise. f.Workspace is nil.
	Exec(ctx context.Context, c *Caller, id string, r *ExecRequest, f *Files) (Session, error)
	Stop(ctx context.Context, c *Caller, id string, timeout time.Duration) (StopResult, error)
	// Adopt puts the network of processes that run already behind the fence.
	Adopt(ctx context.Context, c *Caller, r *AdoptRequest) (Adopted, error)
	// Release takes the fence from adopted processes, which go on without it.
	Release(ctx context.Context, c *Caller, id string) (Sandbox, error)
	// Log returns the output of a detached sandbox from its start. With
	// follow the reader waits for more until the sandbox ends.
	Log(ctx context.Context, id string, follow bool) (io.ReadCloser, error)

	// Events yields records in order. With q.Follow it waits for more until
	// ctx ends. A yielded error ends the sequence.
	Events(ctx context.Context, q EventQuery) iter.Seq2[EventRecord, error]
	// Explain explains one event. One that sees does not show, by its sandbox
	// and scope, is to it as if it were not there.
	Explain(ctx context.Context, eventID string, sees func(sandbox, scope string) bool) (Explanation, error)

	// Allow adds one rule. See AllowRequest.OnlyOwner.
	Allow(ctx context.Context, c *Caller, r *AllowRequest) (AllowResult, error)
	// TakeBack removes what Allow gave for one destination.
	TakeBack(ctx context.Context, c *Caller, r *AllowRequest) (TakenBack, error)
	Providers(ctx context.Context) ([]Provider, error)
	// Inference tells how those are that answer model calls.
	Inference(ctx context.Context) (InferenceStatus, error)
	AddProvider(ctx context.Context, c *Caller, r *ProviderRequest) (Provider, error)
	// RemoveProvider removes what AddProvider wrote.
	RemoveProvider(ctx context.Context, c *Caller, name string) (ProviderRemoved, error)
	CheckPolicy(ctx context.Context, docs []Document) (CheckResult, error)
	// Policy returns the documents in force for the sandbox with that id, or
	// all of them for "".
	Policy(ctx context.Context, id string) (PolicyView, error)
	// PolicyUse tells of every rule in force on the node.
	PolicyUse(ctx context.Context) (PolicyUse, error)
	// ApplyPolicy stores documents in one revision, all or none; each has a
	// text, and c.Rights.Writes each and what it replaces. It does not wait
	// until they are in force.
	ApplyPolicy(ctx context.Context, c *Caller, r *ApplyRequest) (PolicyChange, error)
	// DeletePolicy removes what ApplyPolicy stored under a name, likewise.
	DeletePolicy(ctx context.Context, c *Caller, name, comment string) (PolicyChange, error)
	// Enforced waits until a revision is in force in the sandboxes that c sees,
	// at most for the timeout.
	Enforced(ctx context.Context, c *Caller, revision uint64, timeout time.Duration) (Enforcement, error)
	PolicyHistory

	ApprovalBackend
	BudgetBackend
	LastingBackend
	CostBackend

	Doctor(ctx context.Context) (DoctorReport, error)
	VerifyAudit(ctx context.Context) (AuditReport, error)
}

// Session is one established launch or exec.
type Session interface {
	// ID is the sandbox's id.
	ID() string
	// Wait blocks until the program ended and the records of what the sandbox
	// was refused, and of what was let through and failed, are in the event
	// log, or until ctx ends. The exit code is as `ringfence run` reports it.
	// Abandoning Wait does not end the sandbox.
	Wait(ctx context.Context) (Exit, error)
}

// Exit is how a program ended and what was found in the workspace.
type Exit struct {
	Code     int       `json:"code"`
	Denials  uint64    `json:"denials,omitempty"`
	Failures uint64    `json:"failures,omitempty"` // of what was let through
	Findings []Finding `json:"findings,omitempty"`
	Why      string    `json:"why,omitempty"` // for what the daemon ended it, "" if it did not
}

// Files are the descriptors of a launch or exec. Each was received with the
// close-on-exec flag and checked: Workspace is an O_PATH directory; the three
// of Stdio are all nil (detached or TTY) or each a FIFO, a regular file of an
// ordinary file system or /dev/null; Status is a unix SEQPACKET socket or nil.
type Files struct {
	Workspace *os.File
	Stdio     [3]*os.File
	Status    *os.File
}

// Close closes whatever is there; it may be called more than once.
func (f *Files) Close() {
	if f == nil {
		return
	}
	for _, p := range f.slots() {
		if *p != nil {
			_ = (*p).Close()
			*p = nil
		}
	}
}

// slots lists the places in the order of the descriptor message.
func (f *Files) slots() []**os.File {
	return []**os.File{&f.Workspace, &f.Stdio[0], &f.Stdio[1], &f.Stdio[2], &f.Status}
}

// Role is what the kernel says a caller is to the daemon. What it may do is in
// its Rights.
type Role uint8

const (
	RoleNone   Role = iota // neither of the others
	RoleMember             // in the operator group
	RoleRoot               // uid 0 outside every sandbox
)

// Caller is the peer of a connection as the kernel describes it at accept, with
// what it may do as of one request.
type Caller struct {
	UID    uint32
	GID    uint32
	PID    int      // in the keeper's pid namespace
	Groups []uint32 // supplementary groups
	Role   Role
	Rights Rights // set for each request

	// Exe and Comm are the program that the peer runs, as it says itself: "" when
	// that cannot be told.
	Exe, Comm string

	// PIDFD refers to the peer, valid while the connection lives; nil when
	// the kernel has no SO_PEERPIDFD (before 6.5) and pidfd_open failed.
	PIDFD *os.File
	// Cgroup is the path of the peer below the root of the v2 hierarchy
	// ("/user.slice/..."), read while PIDFD said that the peer is alive.
	// Empty when it is not known; such a caller is refused.
	Cgroup string
}
