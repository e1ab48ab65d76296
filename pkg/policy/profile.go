// SPDX-License-Identifier: Apache-2.0

package policy

// WorkspaceMode is what the agent may do in the workspace. The zero value
// shows no workspace.
type WorkspaceMode string

// Workspace modes.
const (
	WorkspaceNone WorkspaceMode = "none"
	WorkspaceRO   WorkspaceMode = "ro" // read and execute
	WorkspaceRW   WorkspaceMode = "rw" // read, write and execute
)

// Profile is the walls of a sandbox other than its network policy. Everything
// not named is closed: the zero value shows no files, passes no environment
// and allows no unix socket.
type Profile struct {
	Name        string
	Description string

	// Explain: a refused name gets the refusal address, where HTTP answers
	// 403 with the reason, instead of NXDOMAIN.
	Explain bool
	// Terminal: the sandbox may have a pseudo-terminal of its own.
	Terminal bool
	// UnixSockets: connect and send on unix sockets inside the sandbox
	// (all or nothing; no host socket is ever shown).
	UnixSockets bool

	Workspace WorkspaceMode
	Files     Files
	Home      int64 // bytes of the private home directory (tmpfs), 0 = none
	Tmp       int64 // bytes of /tmp (tmpfs)
	Shm       int64 // bytes of /dev/shm (tmpfs)
	Env       Env
	Resources Resources
	Seccomp   Seccomp
	Git       Git
	Require   Require
	// Optional lists features whose absence degrades the sandbox instead of
	// refusing it; values are the Feature constants.
	Optional []string
}

// Files lists absolute paths of the host that the sandbox sees at the same
// place. A missing path is skipped only when it ends in "?" in the document:
// then Optional of the entry is set. Exec implies Read.
type Files struct {
	Read  []PathEntry // shown read-only, not executable
	Exec  []PathEntry // shown read-only, executable
	Write []PathEntry // shown writable, not executable
	// Hide lists absolute paths, below a shown one, that are covered by
	// something empty. A path that does not exist needs no cover.
	Hide []string
	// Guard lists paths relative to the workspace that are bound read-only
	// when they exist, and reported when they appear. Plain paths, no patterns.
	Guard []string
}

// PathEntry is one absolute, clean path.
type PathEntry struct {
	Path     string
	Optional bool // skip it when it does not exist
}

// Env is what the agent's environment is made of. Set wins over Pass.
type Env struct {
	// Pass lists names of the caller's environment; "LC_*" is every name with
	// that prefix.
	Pass []string
	Set  map[string]string
}

// Passes reports whether the caller's variable name goes in. A name that Set
// also has is not passed.
func (e *Env) Passes(name string) bool {
	if _, ok := e.Set[name]; ok {
		return false
	}
	for _, p := range e.Pass {
		if n := len(p) - 1; p[n] == '*' {
			if len(name) >= n && name[:n] == p[:n] {
				return true
			}
		} else if p == name {
			return true
		}
	}
	return false
}

// Resources bounds what a sandbox uses. 0 means no bound of ours for Memory
// and PIDs.
type Resources struct {
	Memory  int64            // bytes; needs the memory controller
	PIDs    int64            // processes and threads; needs the pids controller
	Rlimits map[string]int64 // by name, see RlimitNumber; -1 = unlimited
}

// rlimitNumbers maps the names of documents to RLIMIT numbers (asm-generic).
var rlimitNumbers = map[string]int{
	"cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7,
	"memlock": 8, "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}

// RlimitNumber is the Linux RLIMIT_ number (x86-64 and arm64) of a name used
// in Resources.Rlimits.
func RlimitNumber(name string) (int, bool) {
	n, ok := rlimitNumbers[name]
	return n, ok
}

// Seccomp switches single groups of the system call filter. The zero value is
// the strict one.
type Seccomp struct {
	Memfd bool // allow memfd_create (JITs, Wayland, Go tests)
}

// Git is how repositories in the workspace are treated.
type Git struct {
	// Protect binds .git onto itself with read-only hooks, and scans for
	// configuration that runs programs when the workspace is handed back.
	Protect bool
}

// Require lists what the kernel must have; without it the sandbox is refused.
type Require struct {
	LandlockABI int // least Landlock ABI, at least 1
}

// Features that a profile may list under optional.
const (
	FeatureMemoryLimit = "memoryLimit" // resources.memory without the cgroup memory controller
	FeaturePIDsLimit   = "pidsLimit"   // resources.pids without the cgroup pids controller
	FeatureUnixHooks   = "unixHooks"   // connect_unix and sendmsg_unix hooks (kernel 6.7); seccomp closes the family then
	FeatureLandlockABI = "landlockABI" // an ABI lower than require.landlockABI, but at least 1
	FeatureExecTrace   = "execTrace"   // exec and exit records
)

// IsOptional reports whether the profile tolerates the absence of a feature.
func (p *Profile) IsOptional(feature string) bool {
	for _, f := range p.Optional {
		if f == feature {
			return true
		}
	}
	return false
}
