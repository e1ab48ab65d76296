// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/ringfence/ringfence/pkg/store"
)

func revisionSchema() migration {
	return migration{"policy revisions", `
CREATE TABLE texts (
	hash TEXT NOT NULL PRIMARY KEY,
	text TEXT NOT NULL
) STRICT;
CREATE TABLE revisions (
	number  INTEGER NOT NULL PRIMARY KEY,
	time    INTEGER NOT NULL,
	author  TEXT NOT NULL,
	uid     INTEGER NOT NULL,
	pid     INTEGER NOT NULL,
	program TEXT NOT NULL,
	action  TEXT NOT NULL,
	comment TEXT NOT NULL
) STRICT;
CREATE TABLE changes (
	revision INTEGER NOT NULL REFERENCES revisions(number),
	owner    TEXT NOT NULL,
	file     TEXT NOT NULL,
	kind     TEXT NOT NULL,
	name     TEXT NOT NULL,
	scope    TEXT NOT NULL,
	before   TEXT REFERENCES texts(hash),
	after    TEXT REFERENCES texts(hash),
	PRIMARY KEY (revision, owner, file, kind, name, scope)
) STRICT;
CREATE INDEX changes_of ON changes (owner, file, kind, name, scope, revision);
CREATE INDEX changes_named ON changes (name, revision);`}
}

// revisionGrants lets a change count where its author was given the right, whatever
// it has been given since.
func revisionGrants() migration {
	return migration{"what authors were given", "ALTER TABLE revisions ADD COLUMN grants TEXT NOT NULL DEFAULT ''"}
}

// AddRevision appends one.
func (s *Store) AddRevision(ctx context.Context, r store.Revision, texts []string, urgent bool) error {
	return s.write(ctx, urgent, func(tx *sql.Tx) error {
		last, err := lastRevision(ctx, tx)
		if err != nil {
			return err
		}
		if r.Number <= last {
			return &store.Error{Kind: store.ErrConflict, What: fmt.Sprintf("revision %d follows %d", r.Number, last)}
		}
		for _, text := range texts {
			if _, err := tx.ExecContext(ctx, "INSERT INTO texts (hash, text) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING", store.Hash(text), text); err != nil {
				return err
			}
		}
		a := r.Author
		if _, err := tx.ExecContext(ctx, "INSERT INTO revisions (number, time, author, uid, pid, program, action, comment, grants) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			int64(r.Number), r.Time, a.Name, a.UID, a.PID, a.Program, r.Action, r.Comment, a.Grants); err != nil {
			return err
		}
		for i := range r.Changes {
			if err := addChange(ctx, tx, r.Number, &r.Changes[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func addChange(ctx context.Context, tx *sql.Tx, number uint64, c *store.Change) error {
	var have sql.NullString
	err := tx.QueryRowContext(ctx, "SELECT after FROM changes WHERE owner=? AND file=? AND kind=? AND name=? AND scope=? ORDER BY revision DESC LIMIT 1",
		c.Owner, c.File, c.Kind, c.Name, c.Scope).Scan(&have)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if have.String != c.Before {
		return &store.Error{Kind: store.ErrConflict, What: fmt.Sprintf("revision %d changes %s %q of %s from a text that it does not have", number, c.Kind, c.Name, c.File)}
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO changes (revision, owner, file, kind, name, scope, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		int64(number), c.Owner, c.File, c.Kind, c.Name, c.Scope, nullable(c.Before), nullable(c.After))
	return err
}

func nullable(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

type querier interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

func lastRevision(ctx context.Context, q querier) (uint64, error) {
	var n int64
	err := q.QueryRowContext(ctx, "SELECT coalesce(max(number), 0) FROM revisions").Scan(&n)
	return uint64(n), err
}

// Last is the newest number.
func (s *Store) Last(ctx context.Context) (uint64, error) {
	n, err := lastRevision(ctx, s.db)
	return n, s.failed("the policy revisions cannot be read", err)
}

// Revision is one revision.
func (s *Store) Revision(ctx context.Context, number uint64) (store.Revision, error) {
	list, err := s.revisions(ctx, "WHERE number=?", int64(number))
	if err == nil && len(list) == 0 {
		err = &store.Error{Kind: store.ErrNotFound, What: fmt.Sprintf("policy revision %d", number)}
	}
	if err != nil {
		return store.Revision{}, err
	}
	return list[0], nil
}

// History lists revisions.
func (s *Store) History(ctx context.Context, q store.RevisionQuery) ([]store.Revision, error) {
	where, args := "WHERE 1", []any{}
	if q.Name != "" {
		where, args = where+" AND number IN (SELECT revision FROM changes WHERE name=?)", append(args, q.Name)
	}
	if q.Before != 0 {
		where, args = where+" AND number<?", append(args, int64(q.Before))
	}
	where += " ORDER BY number DESC"
	if q.Limit > 0 {
		where, args = where+" LIMIT ?", append(args, q.Limit)
	}
	return s.revisions(ctx, where, args...)
}

// revisions reads them and then, one query for all, what they changed.
func (s *Store) revisions(ctx context.Context, where string, args ...any) ([]store.Revision, error) {
	const what = "the policy revisions cannot be read"
	rows, err := s.db.QueryContext(ctx, "SELECT number, time, author, uid, pid, program, action, comment, grants FROM revisions "+where, args...)
	if err != nil {
		return nil, s.failed(what, err)
	}
	var list []store.Revision
	at := map[int64]int{}
	for rows.Next() {
		var r store.Revision
		var n int64
		if err := rows.Scan(&n, &r.Time, &r.Author.Name, &r.Author.UID, &r.Author.PID, &r.Author.Program, &r.Action, &r.Comment, &r.Author.Grants); err != nil {
			return nil, s.failed(what, errors.Join(err, rows.Close()))
		}
		r.Number, at[n] = uint64(n), len(list)
		list = append(list, r)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, s.failed(what, err)
	}
	rows, err = s.db.QueryContext(ctx, "SELECT revision, owner, file, kind, name, scope, coalesce(before, ''), coalesce(after, '') FROM changes WHERE revision IN (SELECT number FROM revisions "+where+")", args...)
	if err != nil {
		return nil, s.failed(what, err)
	}
	for rows.Next() {
		var n int64
		var c store.Change
		if err := rows.Scan(&n, &c.Owner, &c.File, &c.Kind, &c.Name, &c.Scope, &c.Before, &c.After); err != nil {
			return nil, s.failed(what, errors.Join(err, rows.Close()))
		}
		if i, ok := at[n]; ok { // one that came between the two queries is not asked for
			list[i].Changes = append(list[i].Changes, c)
		}
	}
	for i := range list {
		slices.SortFunc(list[i].Changes, func(a, b store.Change) int { return compareKeys(a.Key, b.Key) })
	}
	return list, s.failed(what, errors.Join(rows.Err(), rows.Close()))
}

func compareKeys(a, b store.Key) int {
	return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Scope, b.Scope))
}

// Documents are those as of a revision: of each key the newest change up to it.
func (s *Store) Documents(ctx context.Context, at uint64) ([]store.Document, error) {
	const what = "the policy documents cannot be read"
	limit := int64(at)
	if at == 0 {
		limit = 1<<63 - 1
	}
	rows, err := s.db.QueryContext(ctx, `
SELECT c.owner, c.file, c.kind, c.name, c.scope, c.revision, t.hash, t.text
FROM (SELECT owner, file, kind, name, scope, max(revision) AS revision FROM changes WHERE revision<=? GROUP BY owner, file, kind, name, scope) AS newest
JOIN changes AS c USING (owner, file, kind, name, scope, revision)
JOIN texts AS t ON t.hash=c.after`, limit)
	if err != nil {
		return nil, s.failed(what, err)
	}
	var list []store.Document
	for rows.Next() {
		var d store.Document
		var n int64
		var hash string
		if err := rows.Scan(&d.Owner, &d.File, &d.Kind, &d.Name, &d.Scope, &n, &hash, &d.Text); err != nil {
			return nil, s.failed(what, errors.Join(err, rows.Close()))
		}
		if store.Hash(d.Text) != hash {
			return nil, errors.Join(s.damaged(fmt.Errorf("the text of %s %q does not match its hash", d.Kind, d.Name)), rows.Close())
		}
		d.Since = uint64(n)
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b store.Document) int { return compareKeys(a.Key, b.Key) })
	return list, s.failed(what, errors.Join(rows.Err(), rows.Close()))
}
