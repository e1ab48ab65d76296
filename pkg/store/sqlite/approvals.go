// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/ringfence/ringfence/pkg/store"
)

func approvalSchema() migration {
	return migration{"approvals", `
CREATE TABLE approvals (
	id      TEXT NOT NULL PRIMARY KEY,
	sandbox TEXT NOT NULL,
	binding TEXT NOT NULL,
	state   TEXT NOT NULL,
	version INTEGER NOT NULL,
	created INTEGER NOT NULL,
	ended   INTEGER NOT NULL,
	body    BLOB NOT NULL
) STRICT;
CREATE INDEX approvals_of ON approvals (sandbox, ended);
CREATE INDEX approvals_ended ON approvals (ended);
CREATE UNIQUE INDEX approvals_pending ON approvals (binding) WHERE state='pending';`}
}

// approvalOrder lets the list be read in pages.
func approvalOrder() migration {
	return migration{"approvals in their order", "CREATE INDEX approvals_order ON approvals (created, id)"}
}

const (
	approvalsUnread = "the approvals cannot be read"
	approvalColumns = "SELECT id, sandbox, binding, state, version, created, ended, body FROM approvals "
)

// PutApprovals writes them, all or none.
func (s *Store) PutApprovals(ctx context.Context, list ...store.Approval) error {
	return s.write(ctx, false, func(tx *sql.Tx) error {
		for i := range list {
			if err := putApproval(ctx, tx, &list[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func putApproval(ctx context.Context, tx *sql.Tx, a *store.Approval) error {
	var res sql.Result
	var err error
	if a.Version == 1 {
		res, err = tx.ExecContext(ctx, "INSERT INTO approvals (id, sandbox, binding, state, version, created, ended, body) VALUES (?, ?, ?, ?, 1, ?, ?, ?)",
			a.ID, a.Sandbox, a.Binding, a.State, a.Created, a.Ended, a.Body)
	} else {
		res, err = tx.ExecContext(ctx, "UPDATE approvals SET state=?, version=?, ended=?, body=? WHERE id=? AND sandbox=? AND binding=? AND version=?",
			a.State, int64(a.Version), a.Ended, a.Body, a.ID, a.Sandbox, a.Binding, int64(a.Version)-1)
	}
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code() == lib.SQLITE_CONSTRAINT_UNIQUE || se.Code() == lib.SQLITE_CONSTRAINT_PRIMARYKEY) {
		return approvalConflict(a, err)
	}
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n != 1 {
		return approvalConflict(a, nil)
	}
	return err
}

func approvalConflict(a *store.Approval, cause error) error {
	return &store.Error{Kind: store.ErrConflict, What: fmt.Sprintf("version %d of approval %s does not follow", a.Version, a.ID), Cause: cause}
}

// Approval is one of them.
func (s *Store) Approval(ctx context.Context, id string) (store.Approval, error) {
	list, err := s.approvals(ctx, "WHERE id=?", id)
	if err == nil && len(list) == 0 {
		err = &store.Error{Kind: store.ErrNotFound, What: "approval " + id}
	}
	if err != nil {
		return store.Approval{}, err
	}
	return list[0], nil
}

// Approvals lists them.
func (s *Store) Approvals(ctx context.Context, q store.ApprovalQuery) ([]store.Approval, error) {
	where, args := "WHERE 1", []any{}
	if q.Sandbox != "" {
		where, args = where+" AND sandbox=?", append(args, q.Sandbox)
	}
	if q.EndedSince != 0 {
		where, args = where+" AND (ended=0 OR ended>=?)", append(args, q.EndedSince)
	}
	if q.Before != nil {
		where, args = where+" AND (created, id)<(?, ?)", append(args, q.Before.Created, q.Before.ID)
	}
	where += " ORDER BY created DESC, id DESC"
	if q.Limit > 0 {
		where, args = where+" LIMIT ?", append(args, q.Limit)
	}
	return s.approvals(ctx, where, args...)
}

func (s *Store) approvals(ctx context.Context, where string, args ...any) (list []store.Approval, err error) {
	rows, err := s.db.QueryContext(ctx, approvalColumns+where, args...)
	if err != nil {
		return nil, s.failed(approvalsUnread, err)
	}
	for rows.Next() {
		var a store.Approval
		var version int64
		if err := rows.Scan(&a.ID, &a.Sandbox, &a.Binding, &a.State, &version, &a.Created, &a.Ended, &a.Body); err != nil {
			return nil, s.failed(approvalsUnread, errors.Join(err, rows.Close()))
		}
		a.Version = uint64(version)
		list = append(list, a)
	}
	return list, s.failed(approvalsUnread, errors.Join(rows.Err(), rows.Close()))
}

// PruneApprovals forgets what ended before a time.
func (s *Store) PruneApprovals(ctx context.Context, endedBefore int64) (n int64, err error) {
	err = s.write(ctx, false, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, "DELETE FROM approvals WHERE ended<>0 AND ended<?", endedBefore)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
