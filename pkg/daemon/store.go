// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/ringfence/ringfence/pkg/documents"
	"github.com/ringfence/ringfence/pkg/stateformat"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
)

// Below the state directory.
const (
	storeDir     = "store"
	documentsDir = "documents" // the library's own files; before format 2 the documents of the API too
)

func openStore(stateDir, version string, logger *slog.Logger) (store.Store, error) {
	s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: filepath.Join(stateDir, storeDir), Version: version, Logger: logger})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// intoStore is the step to format 2.
func intoStore(version string, logger *slog.Logger) stateformat.Step {
	return stateformat.Step{From: 1, What: "documents of the API move into the store", Paths: []string{documentsDir, storeDir}, Do: func(dir string) error {
		st, err := openStore(dir, version, logger)
		if err != nil {
			return err
		}
		return errors.Join(documents.Import(context.Background(), filepath.Join(dir, documentsDir), st, logger), st.Close())
	}}
}
