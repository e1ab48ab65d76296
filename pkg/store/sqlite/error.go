// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/ringfence/ringfence/pkg/store"
)

// failed gives an error of the database its kind and what to do; errors that
// say so already, and nil, stay.
func (s *Store) failed(what string, err error) error {
	var known *store.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	e := &store.Error{What: what + " (" + s.path() + ")", Cause: err}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return e
	}
	switch se.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return s.damaged(err)
	case lib.SQLITE_FULL: // what ENOSPC and EDQUOT become
		e.Kind, e.Remedy = store.ErrFull, "make room on the file system of "+s.o.Dir+", and do it again"
	case lib.SQLITE_BUSY:
		e.Remedy = "another process has it open: only one daemon may use a state directory"
	case lib.SQLITE_READONLY, lib.SQLITE_CANTOPEN, lib.SQLITE_IOERR:
		if isUnsynced(se.Code()) {
			return s.refuseFromNow(err)
		}
		e.Remedy = "the disk reports errors: look at dmesg, and restore " + s.o.Dir + " from a backup if it does not come back"
		if s.isReadOnly() {
			e.Kind, e.Remedy = store.ErrReadOnly, "mount the file system of "+s.o.Dir+" so that root can write it (the kernel makes one read-only after an error of the disk: look at dmesg)"
		}
	}
	return e
}

// isReadOnly asks the kernel; SQLite does not hand on the number of the error.
func (s *Store) isReadOnly() bool {
	var st unix.Statfs_t
	return unix.Statfs(s.o.Dir, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// damaged is the answer to a file that is not whole. Nothing is repaired: what
// was denied by what is missing would be open.
func (s *Store) damaged(cause error) error {
	return &store.Error{Kind: store.ErrCorrupt, What: "the store cannot be used (" + s.path() + ")", Cause: cause,
		Remedy: "look at dmesg first: what the disk cannot read looks the same, and may come back; else stop the daemon, keep a copy of " + s.o.Dir + ", and put the directory back from a backup (copies made before a change of format are beside it, *" + backupSuffix + ", and in " +
			filepath.Join(filepath.Dir(s.o.Dir), "backup") + "); without one, move " + s.o.Dir + " away and do what the next start says: what was applied has to be applied again"}
}

func isUnsynced(code int) bool {
	return code == lib.SQLITE_IOERR_FSYNC || code == lib.SQLITE_IOERR_DIR_FSYNC
}

// refuseFromNow is the answer to a sync that failed. Linux then takes what was
// not written for written (it is clean in the page cache, and the next fsync says
// that all is well), so nothing that builds on it may be acknowledged: the store
// takes no more changes until it is opened again, which writes the log anew.
func (s *Store) refuseFromNow(cause error) *store.Error {
	e := &store.Error{Kind: store.ErrUnsynced, What: "the store takes no changes any more (" + s.path() + ")", Cause: cause,
		Remedy: "look at dmesg for errors of the disk, and restart ringfenced: it reads what the disk has, and writes the store's log anew (sandboxes go on meanwhile)"}
	s.unsynced.CompareAndSwap(nil, e)
	return e
}
