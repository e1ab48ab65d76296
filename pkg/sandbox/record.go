// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Record is what a restarted keeper must know of a sandbox to take it over. It is
// written before the agent starts and lives in the sandbox's own directory
// below the run directory; it need not survive a machine crash.
type Record struct {
	ID       string   `json:"id"`
	Number   uint32   `json:"number"` // in kernel maps and towards the gateway
	Name     string   `json:"name"`
	Scope    string   `json:"scope"`
	Profile  string   `json:"profile"`
	Explain  bool     `json:"explain"`
	Unix     bool     `json:"unix"`             // unix sockets are allowed
	Loopback bool     `json:"loopback"`         // its own loopback is allowed
	Learns   bool     `json:"learns,omitempty"` // see policy.View.Learning
	Owner    uint32   `json:"owner"`            // uid of the launcher
	UID      uint32   `json:"uid"`              // host uid it runs as
	Groups   []uint32 `json:"groups"`           // host groups it is in, primary first; none of a uid of its own
	OwnUID   bool     `json:"ownUid"`           // UID comes from the range and is given back
	Argv     []string `json:"argv"`
	Env      []string `json:"env"` // the agent's, for further programs
	Dir      string   `json:"dir"` // likewise
	Detached bool     `json:"detached"`
	TTY      bool     `json:"tty"`

	Init     Process `json:"init"`
	Cgroup   string  `json:"cgroup"`   // absolute path
	CgroupID uint64  `json:"cgroupId"` // its inode: a path can be made again

	Namespaces map[string]uint64 `json:"namespaces"` // inodes by name in /proc/PID/ns, as init was born

	Listeners []uint64 `json:"listeners"` // cookies of the gateway's sockets, in the order of Listeners.Files

	Foreign *Foreign `json:"foreign,omitempty"` // of processes that ran before they were fenced; nil: the keeper started it

	Workspace    string `json:"workspace"` // as the launcher named it
	Handback     bool   `json:"handback"`  // it is to be looked through at the end
	WorkspaceDev uint64 `json:"workspaceDev"`
	WorkspaceIno uint64 `json:"workspaceIno"`

	Watch map[string]bool `json:"watch,omitempty"` // see kernel.Sandbox.Watch

	Documents []string  `json:"documents,omitempty"` // names of the files with its own policy
	Degraded  []string  `json:"degraded,omitempty"`
	Guard     []string  `json:"guard,omitempty"`     // hooks of the third lock that judge it
	Unguarded string    `json:"unguarded,omitempty"` // why there is no third lock
	Created   time.Time `json:"created"`
	Started   bool      `json:"started"` // the agent was let go
}

const recordFile = "record.json"

func (r *Record) save(dir string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	tmp := filepath.Join(dir, ".record.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, recordFile)); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

func loadRecord(dir string) (*Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("record %s: %w", dir, err)
	}
	return &r, nil
}
