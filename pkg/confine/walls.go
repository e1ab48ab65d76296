// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// Paths inside a sandbox that are ours.
const (
	// Home is the agent's home directory: a private tmpfs.
	Home = "/home/agent"
	// GuardDir holds the decoys of guarded paths that lie in a directory the
	// agent may write; a Landlock denial on /guarded/X means that the agent
	// tried to open X.
	GuardDir = "/guarded"
	// CAFile is the sandbox's own CA certificate alone.
	CAFile = "/etc/ringfence/ca.pem"
	// BundleFile is the system's CA bundle with the sandbox's CA appended.
	BundleFile = "/etc/ringfence/ca-bundle.pem"
)

// WorkspaceMode is what the agent may do in its workspace. The zero value
// gives no workspace.
type WorkspaceMode uint8

const (
	WorkspaceNone WorkspaceMode = iota
	WorkspaceReadOnly
	WorkspaceReadWrite
)

// Walls is the file and resource part of a profile, as plain data. Paths are
// absolute or begin with "~/", which means the caller's real home
// (PlanInput.RealHome); globs (path.Match) are allowed in Guarded only.
type Walls struct {
	System  []string // read-only and executable; nil = DefaultSystem; missing or unreadable ones are skipped
	Read    []string // further read-only, not executable; must exist
	Exec    []string // further read-only, executable; must exist
	Write   []string // further writable directories; must exist
	Guarded []string // empty decoys that Landlock refuses; nil = DefaultGuarded, empty = none
	Devices []string // device nodes below /dev; nil = DefaultDevices

	Workspace   WorkspaceMode
	UnixSockets bool // recorded only: the kernel hooks and seccomp decide

	TmpBytes  int64 // size of /tmp and /var/tmp each; 0 = 512 MiB
	ShmBytes  int64 // size of /dev/shm; 0 = 512 MiB
	HomeBytes int64 // size of the private home; 0 = 512 MiB

	// Rlimits hold for init too, except RLIMIT_AS and RLIMIT_DATA, which are set
	// on each started process right after its exec. RLIMIT_CORE is always 0.
	Rlimits        []Rlimit
	MinLandlockABI int    // below it the launch is refused; at least 1
	Hostname       string // "" = ringfence
}

// DefaultSystem lists what makes up an operating system's programs.
var defaultSystem = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/etc", "/nix/store", "/gnu/store",
}

var defaultDevices = []string{"null", "zero", "full", "random", "urandom", "tty"}

var defaultGuarded = []string{
	"~/.ssh/*", "~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519", "~/.ssh/id_dsa", "~/.ssh/id_ecdsa_sk", "~/.ssh/id_ed25519_sk",
	"~/.aws/credentials", "~/.netrc", "~/.git-credentials", "~/.config/gh/hosts.yml", "~/.docker/config.json",
	"~/.kube/config", "~/.pypirc", "~/.config/gcloud/application_default_credentials.json",
	"~/.azure/msal_token_cache.json", "~/.gnupg/secring.gpg", "~/.gnupg/private-keys-v1.d", "~/.pgpass", "~/.my.cnf", "~/.vault-token",
	"~/.npmrc", "~/.cargo/credentials.toml", "~/.config/git/credentials", "~/.terraform.d/credentials.tfrc.json",
	"~/.aws/sso/cache", "~/.config/gcloud/credentials.db", "~/.config/gcloud/access_tokens.db", "~/.password-store", "~/.local/share/keyrings",
	"~/.codex/auth.json", "~/.claude/.credentials.json",
	"/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d",
	"/etc/ssh/*_key", "/etc/ssl/private", "/etc/krb5.keytab", "/etc/ringfence/secrets",
	"/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
	"/run/dbus/system_bus_socket", "/run/systemd/private",
}

// DefaultSystem returns the directories shown when Walls.System is nil.
func DefaultSystem() []string { return append([]string(nil), defaultSystem...) }

// DefaultGuarded returns the well-known secrets guarded when Walls.Guarded is nil.
func DefaultGuarded() []string { return append([]string(nil), defaultGuarded...) }

// DefaultDevices returns the device nodes shown when Walls.Devices is nil.
func DefaultDevices() []string { return append([]string(nil), defaultDevices...) }

// Credential is the caller on whose behalf paths are opened.
type Credential struct {
	UID, GID uint32
	Groups   []uint32
}

// Bind is one more mount inside the workspace, for example a repository's .git
// bound onto itself. Source is an O_PATH descriptor of the same mount
// namespace as the keeper's and stays with the caller.
type Bind struct {
	Source   *os.File
	Target   string // absolute, inside
	ReadOnly bool
}

// PlanInput is everything [Plan] needs. Descriptors stay with the caller;
// Prepared holds duplicates.
type PlanInput struct {
	Walls     Walls
	SandboxID string

	// Identity is the agent as seen inside; HostUID and HostGID are the same on
	// the host. They differ only with Identity.UserNS. HostUID is never 0.
	Identity         Identity
	HostUID, HostGID uint32
	// Caller, when set, is an unprivileged caller: Read, Write and Exec paths
	// are opened with its rights and nothing is idmapped. nil = root.
	Caller   *Credential
	RealHome string   // the caller's home on the host; "" = none
	Homes    []string // of everybody on the host: what is guarded there is covered wherever it is shown

	Workspace       *os.File // O_PATH directory; nil only with WorkspaceNone
	WorkspaceTarget string   // absolute path inside
	Binds           []Bind
	Idmaps          *Idmaps // optional: shared by the launches of a keeper
	Images          *Images // likewise

	Argv []string
	Env  []string // already filtered by the profile; ours are added
	Dir  string   // "" = the workspace, else Home

	// Large files come in parts, so that what launches share is not copied.
	CABundle  [][]byte // PEM: system roots and the sandbox's CA
	CACert    []byte   // PEM: the sandbox's CA alone
	JavaStore [][]byte // PKCS#12 or JKS truststore
	Resolver  string   // nameserver for resolv.conf; "" = 127.0.0.53

	SeccompFilter []byte      // struct sock_filter array
	Stdio         [3]*os.File // ignored with TTY
	Status        *os.File    // may be nil
	Listener      *os.File    // may be nil; see Spec.ListenFD
	TTY           bool
	Rows, Cols    uint16
}

// Prepared is a launch specification with the descriptors it refers to.
type Prepared struct {
	Spec Spec
	FDs  []*os.File
	// Notes says in words what was left out or done differently, for status
	// displays ("optional path /x is missing").
	Notes []string
}

// Close closes the descriptors. Detached mounts that were not moved vanish.
func (p *Prepared) Close() {
	for _, f := range p.FDs {
		f.Close()
	}
	p.FDs = nil
}

// Send hands the specification to init.
func (p *Prepared) Send(c *Conn) error {
	b, err := p.Spec.AppendBinary(nil)
	if err != nil {
		return err
	}
	return c.Send(Frame{Type: FrameSpec}, b, p.FDs...)
}

func (p *Prepared) add(f *os.File) int {
	p.FDs = append(p.FDs, f)
	return len(p.FDs) - 1
}

// addDup adds a duplicate of f, or nothing (-1) when f is nil.
func (p *Prepared) addDup(f *os.File) (int, error) {
	if f == nil {
		return -1, nil
	}
	d, err := dupFile(f)
	if err != nil {
		return -1, err
	}
	return p.add(d), nil
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := rawFD(f)
	if err != nil {
		return nil, err
	}
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", err)
	}
	return os.NewFile(uintptr(d), f.Name()), nil
}

// under says whether p is dir or lies below it. Both are clean and absolute.
func under(p, dir string) bool {
	return dir == "/" || strings.HasPrefix(p, dir) && (len(p) == len(dir) || p[len(dir)] == '/')
}

func cleanAbs(p string) bool { return path.IsAbs(p) && path.Clean(p) == p }
