// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"bytes"
	"encoding/gob"
	"fmt"
	"time"
)

// Limits bound a walk. The zero value means the defaults.
type Limits struct {
	Entries int           // names looked at; default 4,000,000
	Depth   int           // directories below the root; default 200
	Time    time.Duration // default 60 s
}

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 4_000_000
	}
	if l.Depth <= 0 {
		l.Depth = 200
	}
	if l.Time <= 0 {
		l.Time = time.Minute
	}
	return l
}

// LimitError says that a walk did not see everything.
type LimitError struct {
	What string // "entries", "time"
	Path string // where it stopped
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("workspace: gave up after too many %s at %q", e.What, e.Path)
}

// Baseline is what a walk found that could make the host run something. It is
// a value to compare with, made by Survey; keep it for the life of a sandbox.
type Baseline struct {
	items map[itemKey]item
}

type itemKind uint8

const (
	_           itemKind = iota // in the order in which one path is dealt with
	itemSetID                   // regular file with set-user-ID or set-group-ID
	itemCaps                    // regular file with file capabilities
	itemDevice                  // block or character device
	itemConfig                  // git configuration file
	itemModules                 // .gitmodules
	itemHook                    // file in a hooks directory
	itemPointer                 // .git file, commondir, or a symlink in their place
	itemDeep                    // directory below the depth limit
)

type itemKey struct {
	Kind itemKind
	Path string
}

// item is one thing seen. Exported fields because it travels by gob.
type item struct {
	Digest   string    // equal digests mean: unchanged
	Settings []Setting // dangerous ones (itemConfig, itemModules)
	Err      string    // it could not be read or parsed
	Outside  bool      // itemPointer: leads out of the workspace
	Target   string    // itemPointer: what it says
	File     bool      // itemPointer: a regular file, not a symlink
	UID, GID uint32    // owner of the file
	Mode     uint32    // its permission bits, 0 of a symlink
}

// has says whether the very same setting was there before.
func (i item) has(s Setting) bool {
	for _, old := range i.Settings {
		if old.Key == s.Key && old.Value == s.Value && old.Bare == s.Bare {
			return true
		}
	}
	return false
}

// MarshalBinary encodes the baseline so that a restarted keeper can go on.
func (b *Baseline) MarshalBinary() ([]byte, error) {
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(b.items); err != nil {
		return nil, fmt.Errorf("workspace: encode baseline: %w", err)
	}
	return buf.Bytes(), nil
}

// UnmarshalBinary reads what MarshalBinary wrote. The bytes must come from a
// place that no sandbox can write.
func (b *Baseline) UnmarshalBinary(data []byte) error {
	b.items = nil
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&b.items); err != nil {
		return fmt.Errorf("workspace: decode baseline: %w", err)
	}
	return nil
}
