// SPDX-License-Identifier: Apache-2.0

// Package confine holds the walls of a sandbox other than its network:
// mounts, identity, Landlock, seccomp, resource limits. The keeper side
// prepares a [Spec] and detached mounts; ringfence-init applies them to itself
// before the agent exists.
package confine

// Spec is everything ringfence-init needs. It travels from the keeper to init
// over init's socket pair (see [Conn] and [Spec.AppendBinary]) together with
// the descriptors it refers to by index (the n-th descriptor passed with the
// message). The JSON names are for people: `ringfence explain`, logs, tests.
type Spec struct {
	SandboxID string   `json:"sandboxId"`
	Hostname  string   `json:"hostname"`
	Argv      []string `json:"argv"`
	Env       []string `json:"env"` // complete and final, K=V
	Dir       string   `json:"dir"` // working directory inside

	Identity Identity `json:"identity"`
	Mounts   []Mount  `json:"mounts"` // applied in order, below RootFD
	Landlock Landlock `json:"landlock"`
	Rlimits  []Rlimit `json:"rlimits"`

	// Indexes into the passed descriptors; -1 = none.
	RootFD    int    `json:"rootFd"`    // detached read-only mount with every mount point that lies in the root
	SeccompFD int    `json:"seccompFd"` // sealed memfd with the compiled filter (struct sock_filter array)
	StdioFDs  [3]int `json:"stdioFds"`  // ignored when TTY
	StatusFD  int    `json:"statusFd"`  // unix SEQPACKET towards the command line tool; see Frame
	ListenFD  int    `json:"listenFd"`  // listening unix SEQPACKET socket on which a restarted keeper finds init again

	TTY  bool   `json:"tty"` // allocate a pty in the sandbox's devpts, send its master over StatusFD
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Identity is who the agent is. With UserNS, init was cloned in a user
// namespace that maps 0 to an unprivileged host uid, and UID, GID are 0.
type Identity struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
	UserNS bool     `json:"userns"`
}

// MountKind says how a mount comes about. The zero value is invalid.
type MountKind string

const (
	MountFD      MountKind = "fd"      // move_mount of the passed detached mount FD
	MountTmpfs   MountKind = "tmpfs"   // fresh tmpfs (Size bytes, Mode)
	MountProc    MountKind = "proc"    // fresh proc, hidepid as Data says; /proc/sys etc. then made read-only
	MountDevpts  MountKind = "devpts"  // fresh devpts, newinstance
	MountMqueue  MountKind = "mqueue"  // fresh mqueue
	MountSysfs   MountKind = "sysfs"   // fresh read-only sysfs of the sandbox's network namespace
	MountDir     MountKind = "dir"     // only a directory (Mode) in a tmpfs
	MountFile    MountKind = "file"    // only a regular file (Mode, Data) in a tmpfs
	MountSymlink MountKind = "symlink" // symlink Target -> Data
	// MountBind shows the file at Data, a path inside whose mount comes earlier,
	// read-only at the existing Target too.
	MountBind MountKind = "bind"
	// MountOverlay shows the passed detached directory FD, read-only, with the
	// passed detached directory TopFD laid over it, so that files can be added to
	// a directory of the host without writing there.
	MountOverlay MountKind = "overlay"
)

// Mount is one step in building the view. Target is an absolute, clean path
// inside the sandbox in which no component is a symbolic link; missing parents
// are made as 0755 directories where the mount they lie in can be written. A MountFile whose target already exists in an
// earlier mount is bound over it.
type Mount struct {
	Kind     MountKind `json:"kind"`
	Target   string    `json:"target"`
	FD       int       `json:"fd,omitempty"`
	TopFD    int       `json:"topFd,omitempty"`
	IsFile   bool      `json:"isFile,omitempty"` // MountFD: target is a file
	ReadOnly bool      `json:"ro,omitempty"`
	Exec     bool      `json:"exec,omitempty"` // else noexec (nosuid always; nodev unless Dev)
	Dev      bool      `json:"dev,omitempty"`
	Size     int64     `json:"size,omitempty"`
	Mode     uint32    `json:"mode,omitempty"`
	Data     string    `json:"data,omitempty"`
	UID      uint32    `json:"uid,omitempty"` // owner of a MountTmpfs or MountDir, as seen inside
	GID      uint32    `json:"gid,omitempty"`
}

// Landlock is the file policy as paths inside the sandbox.
type Landlock struct {
	MinABI int            `json:"minAbi"` // below it: refuse
	Rules  []LandlockRule `json:"rules"`
}

// LandlockRule grants rights below Path. Missing paths with Optional are
// skipped; otherwise they fail the launch.
type LandlockRule struct {
	Path     string `json:"path"`
	Access   string `json:"access"` // "r" (read+list), "rx" (+execute), "rw" (everything but execute), "rwx", "list" (list only), "dev" (read, write, ioctl on a device)
	Optional bool   `json:"optional,omitempty"`
}

// Rlimit is one resource limit, soft = hard.
type Rlimit struct {
	Resource int    `json:"resource"`
	Value    uint64 `json:"value"`
}
