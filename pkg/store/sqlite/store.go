// SPDX-License-Identifier: Apache-2.0

// Package sqlite keeps a node's store in one SQLite file.
//
// There is one connection, in exclusive locking mode: the index of the log is
// then in memory and not in a shared file, which a full disk could not hold
// (SQLite 3.7.4 and later, "WAL without shared memory"). The log is written with
// synchronous=FULL: a commit is on the disk when it returns.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"

	_ "modernc.org/sqlite" // registers the driver

	"github.com/ringfence/ringfence/pkg/store"
)

// Names below the directory of a store.
const (
	fileName    = "ringfence.db"
	reserveName = "reserve"
)

// reserveSize is held back on the disk for what must not wait for space: some
// hundred removals.
const reserveSize = 1 << 20

// Options of a store.
type Options struct {
	Dir     string // made if it is not there
	Version string // of the program, for messages
	Logger  *slog.Logger
	// AtCommit is for tests of crashes: it is called around every commit. nil in
	// the product.
	AtCommit func(Moment)

	vfs    string            // for tests of faults: SQLite's name of what stands for the disk
	synced func(path string) // and what is told of a file that was synced beside SQLite
}

// Moment is a place around a commit.
type Moment uint8

// Moments.
const (
	BeforeCommit Moment = iota + 1 // everything is written, nothing counts yet
	AfterCommit                    // it is durable, and nobody was told
)

// Store implements [store.Store].
type Store struct {
	o     Options
	steps []migration
	db    *sql.DB

	// unsynced is why the store takes no changes any more: the disk did not
	// confirm one of them.
	unsynced atomic.Pointer[store.Error]
}

var _ store.Store = (*Store)(nil)

// Open opens a store, or makes an empty one, and brings its schema up to date.
// What is damaged, or written by a newer version, is refused and not touched.
func Open(ctx context.Context, o Options) (*Store, error) { return openWith(ctx, o, migrations()) }

func openWith(ctx context.Context, o Options, steps []migration) (*Store, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{o: o, steps: steps}
	if err := ownFile(s.path()); err != nil {
		return nil, err
	}
	// SQLite syncs the directory when it makes a log, and not what holds it.
	if err := errors.Join(syncPath(o.Dir), syncPath(filepath.Dir(o.Dir))); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	if err := s.rewriteLog(); err != nil {
		return nil, err
	}
	q := url.Values{
		"_txlock":       {"immediate"},
		"_pragma":       {"locking_mode(EXCLUSIVE)", "trusted_schema(0)"}, // before the rest, or the log has a shared index
		"_journal_mode": {"WAL"}, "_synchronous": {"FULL"}, "_foreign_keys": {"1"},
	}
	if o.vfs != "" {
		q.Set("vfs", o.vfs)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: s.path()}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, s.failed("the store cannot be opened", err)
	}
	db.SetMaxOpenConns(1)
	db.SetConnMaxLifetime(0)
	s.db = db
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// ready checks what is there and brings it up to date.
func (s *Store) ready(ctx context.Context) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.holdReserve(); err != nil {
		s.o.Logger.Warn("no space could be held back for removals of policy", "error", err)
	}
	return nil
}

func (s *Store) path() string { return filepath.Join(s.o.Dir, fileName) }

// ownFile makes an empty file with the right mode: SQLite gives its log the
// mode of the file.
func ownFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return f.Close()
}

// check looks whether the file is whole. It costs one read of everything.
func (s *Store) check(ctx context.Context) error {
	var said string
	err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&said)
	if err != nil {
		return s.failed("the store cannot be read", err)
	}
	if said != "ok" {
		return s.damaged(errors.New(said))
	}
	return nil
}

// write is one transaction. Once begun it is not given up with its caller.
// urgent: when the disk is full, the space held back is taken.
func (s *Store) write(ctx context.Context, urgent bool, fn func(*sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if why := s.unsynced.Load(); why != nil {
		return why
	}
	ctx = context.WithoutCancel(ctx)
	err := s.once(ctx, fn)
	if err = s.failed("the store did not take a change", err); urgent && errors.Is(err, store.ErrFull) && s.freeReserve() {
		err = s.failed("the store did not take a change", s.once(ctx, fn))
	}
	if err == nil && !urgent {
		if herr := s.holdReserve(); herr != nil {
			s.o.Logger.Warn("no space could be held back for removals of policy", "error", herr)
		}
	}
	return err
}

func (s *Store) once(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if s.o.AtCommit == nil {
		return tx.Commit()
	}
	s.o.AtCommit(BeforeCommit)
	err = tx.Commit()
	s.o.AtCommit(AfterCommit)
	return err
}

// Close ends the use of the file.
func (s *Store) Close() error { return s.db.Close() }
