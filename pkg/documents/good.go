// SPDX-License-Identifier: Apache-2.0

package documents

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/store"
)

// The last good text of every file of the policy directory is kept as a whole,
// with its lines: a mistake that is still there when the daemon starts
// must not open what the file denied.

func (l *Library) goodPath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(l.o.StateDir, ".good", hex.EncodeToString(sum[:12]))
}

// remember stores a text that came into force. A disk that does not take it is
// told: then a restart forgets what a broken file said before.
func (l *Library) remember(name, text string) {
	path := l.goodPath(name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = writeDurably(path, []byte(text), 0o600)
	}
	if err != nil {
		l.o.Logger.Warn("the good form of a policy file could not be kept for a restart", "file", name, "error", err)
	}
}

// recall parses what remember stored, nothing if there is nothing good.
func (l *Library) recall(name string) []policy.Document {
	text, err := readBounded(l.goodPath(name))
	if err != nil {
		return nil
	}
	docs, problems := policy.Parse(name, []byte(text))
	if len(problems) > 0 {
		return nil
	}
	return docs
}

// recallHeldLocked leaves in force what a file said before, if it is held back at
// the start of the daemon and that goes with the rest.
func (l *Library) recallHeldLocked(rev uint64, name string, taken []string) {
	s := l.sources[name]
	if s.origin != FromDirectory || len(s.docs) > 0 {
		return
	}
	docs := l.recall(name)
	if len(docs) == 0 || len(l.claimedLocked(name, docs)) > 0 {
		return
	}
	s.docs = docs
	if _, problems := l.compileLocked(rev, taken); len(problems) > 0 {
		s.docs = nil
	}
}

// forgetUnseenLocked forgets files that went while no daemon ran: the store knows
// that they were there.
func (l *Library) forgetUnseenLocked(seen map[string]bool) {
	for key := range l.recorded {
		if path := filepath.Join(l.o.Dir, key.File); key.Owner == store.OwnerDirectory && !seen[path] {
			l.forget(path)
		}
	}
}

func (l *Library) forget(name string) {
	if err := os.Remove(l.goodPath(name)); err != nil && !os.IsNotExist(err) {
		l.o.Logger.Warn("the kept form of a removed policy file", "file", name, "error", err)
	}
}
