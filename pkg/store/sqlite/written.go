// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"

	"github.com/ringfence/ringfence/pkg/store"
)

// Written says how much people other than root changed since a time.
func (s *Store) Written(ctx context.Context, since int64) (list []store.Written, err error) {
	const what = "the policy revisions cannot be read"
	first, err := s.firstSince(ctx, since)
	if err != nil {
		return nil, s.failed(what, err)
	}
	rows, err := s.db.QueryContext(ctx, `
SELECT r.grants, c.scope, count(*), coalesce(sum(length(CAST(t.text AS BLOB))), 0)
FROM revisions AS r JOIN changes AS c ON c.revision=r.number LEFT JOIN texts AS t ON t.hash=c.after
WHERE r.number>=? AND r.uid>0 AND c.owner=? GROUP BY r.grants, c.scope ORDER BY r.grants, c.scope`, first, store.OwnerAPI)
	if err != nil {
		return nil, s.failed(what, err)
	}
	for rows.Next() {
		var w store.Written
		if err := rows.Scan(&w.Grants, &w.Scope, &w.Changes, &w.Bytes); err != nil {
			return nil, s.failed(what, errors.Join(err, rows.Close()))
		}
		list = append(list, w)
	}
	return list, s.failed(what, errors.Join(rows.Err(), rows.Close()))
}

// firstSince is the number of the first revision since a time: the newest are
// looked at one after the other, which are few.
func (s *Store) firstSince(ctx context.Context, since int64) (first int64, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT number, time FROM revisions ORDER BY number DESC")
	if err != nil {
		return 0, err
	}
	first = 1<<63 - 1
	for rows.Next() {
		var n, at int64
		if err := rows.Scan(&n, &at); err != nil {
			return 0, errors.Join(err, rows.Close())
		}
		if at < since {
			break
		}
		first = n
	}
	return first, errors.Join(rows.Err(), rows.Close())
}
