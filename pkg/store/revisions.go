// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// Owners of documents. What belongs to one sandbox is not stored.
const (
	OwnerAPI       = "api"       // the store is where it lives
	OwnerDirectory = "directory" // it lives in the policy directory; the store knows what it said
)

// Author is who made a revision, as the kernel and the node's user table told
// at that time.
type Author struct {
	Name    string // uid=N(NAME) or uid=N, or what made it by itself ("directory")
	UID     int64  // -1: not a person
	PID     int    // of the program that asked, 0 when it is not known
	Program string // its name, as the process calls itself
	// Grants are the scopes that it was given and by which it made these changes, with
	// spaces between; "" for root, and where nobody noted it.
	Grants string
}

// Revision is one step of the policy documents of a node.
type Revision struct {
	Number  uint64
	Time    int64
	Author  Author
	Action  string // apply, delete, allow, rollback, directory ...
	Comment string
	Changes []Change // in the order of Key
}

// Key names a document: there is one at a time.
type Key struct {
	Owner, File       string
	Kind, Name, Scope string
}

// Change is what a revision did to one document, by the hashes of its texts: ""
// is no document.
type Change struct {
	Key
	Before, After string
}

// Document is a document as of a revision.
type Document struct {
	Key
	Text  string
	Since uint64 // the revision that wrote this text
}

// Hash names a text.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// RevisionQuery chooses revisions; the zero value means all.
type RevisionQuery struct {
	Name   string // only those that changed a document with that name
	Before uint64 // only those with a lower number, 0: all
	Limit  int    // the newest so many, 0: all
}

// Written is how much was changed in the documents of one scope, by authors of the
// same grants.
type Written struct {
	Grants  string // see [Author]
	Scope   string
	Changes int
	Bytes   int64 // of the texts that were written
}

// Revisions is the history of the policy documents.
type Revisions interface {
	// AddRevision appends a revision with the texts that its changes name. Its
	// number must be greater than every one before, and each Before what the
	// store holds; ErrConflict otherwise. With urgent it may take the space that
	// is held back for what only takes rules away.
	AddRevision(ctx context.Context, r Revision, texts []string, urgent bool) error
	// Last is the number of the newest revision, 0 if there is none.
	Last(ctx context.Context) (uint64, error)
	// Revision is one revision, or ErrNotFound.
	Revision(ctx context.Context, number uint64) (Revision, error)
	// History lists revisions, newest first.
	History(ctx context.Context, q RevisionQuery) ([]Revision, error)
	// Written says how much was changed in documents of the API since a time, by
	// people other than root, by grants and scope.
	Written(ctx context.Context, since int64) ([]Written, error)
	// Documents are those as of a revision, in the order of Key; of the newest for 0.
	Documents(ctx context.Context, at uint64) ([]Document, error)
}
