// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/ringfence/ringfence/pkg/store"
)

// applicationID marks the file as ours ("Ring" in its header).
const applicationID = 0x52696e67

// migration is one step of the schema. The nth leads to schema n; they are never
// changed once released, only followed by more.
type migration struct {
	what string // for the log
	sql  string
}

// migrations in their order; each stands with what it is for.
func migrations() []migration {
	return []migration{revisionSchema(), approvalSchema(), approvalOrder(), revisionGrants(), costSchema(), priceSchema(), budgetSchema()}
}

const backupSuffix = ".bak"

// migrate brings the schema up to date, all steps in one transaction. Unless the
// store is new, a copy is made first.
func (s *Store) migrate(ctx context.Context) error {
	steps := s.steps
	have, err := s.schema(ctx)
	if err != nil {
		return err
	}
	switch {
	case have == len(steps):
		return nil
	case have > len(steps):
		return &store.Error{Kind: store.ErrNewer, What: fmt.Sprintf("the store %s has schema %d, and this is ringfenced %s, which knows schemas up to %d", s.path(), have, s.o.Version, len(steps)),
			Remedy: "start the newer version again, or go back to the copy that it made beside the file, *" + backupSuffix + ", and lose what was changed since"}
	}
	if have > 0 {
		if err := s.backup(ctx, have); err != nil {
			return err
		}
	}
	err = s.write(ctx, false, func(tx *sql.Tx) error {
		for _, m := range steps[have:] {
			if _, err := tx.ExecContext(ctx, m.sql); err != nil {
				return fmt.Errorf("%s: %w", m.what, err)
			}
		}
		_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", applicationID, len(steps)))
		return err
	})
	if err != nil {
		return s.failed("the store could not be brought to its present schema", err)
	}
	if have > 0 {
		s.o.Logger.Info("the store has a new schema", "from", have, "to", len(steps), "copy", s.backupPath(have))
	}
	return nil
}

// schema is the number of the schema that the file has, 0 for an empty file.
func (s *Store) schema(ctx context.Context) (int, error) {
	var id, version, tables int
	row := s.db.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)")
	if err := row.Scan(&id, &version, &tables); err != nil {
		return 0, s.failed("the store cannot be read", err)
	}
	switch {
	case id == applicationID && version > 0:
		return version, nil
	case id == 0 && version == 0 && tables == 0:
		return 0, nil
	}
	return 0, s.damaged(errors.New("it is the database of another program"))
}

func (s *Store) backupPath(schema int) string {
	return fmt.Sprintf("%s.schema-%d%s", s.path(), schema, backupSuffix)
}

// backup copies the store, durably, before a step changes it.
func (s *Store) backup(ctx context.Context, schema int) error {
	path := s.backupPath(schema)
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !os.IsNotExist(err) { // of an attempt before
		return fmt.Errorf("store: %w", err)
	}
	if _, err := s.db.ExecContext(ctx, "VACUUM INTO ?", tmp); err != nil {
		return s.failed("the store could not be copied before a change of its schema", err)
	}
	if err := errors.Join(os.Chmod(tmp, 0o600), syncPath(tmp), os.Rename(tmp, path), syncPath(s.o.Dir)); err != nil {
		return fmt.Errorf("store: copy before a change of the schema: %w", err)
	}
	return nil
}

// syncPath syncs a file or a directory.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
