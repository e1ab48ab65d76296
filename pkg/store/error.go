// SPDX-License-Identifier: Apache-2.0

package store

import "errors"

// Kinds of errors, for errors.Is.
var (
	ErrNotFound = errors.New("not in the store")
	ErrConflict = errors.New("the store holds something else meanwhile")
	ErrFull     = errors.New("the disk is full")
	ErrReadOnly = errors.New("the disk cannot be written")
	ErrUnsynced = errors.New("the disk did not confirm a change")
	ErrCorrupt  = errors.New("the store is damaged")
	ErrNewer    = errors.New("the store was written by a newer version")
)

// Error is why a store cannot be used or did not take a change: what failed,
// why, and what to do.
type Error struct {
	Kind   error // one of those above, nil for none of them
	What   string
	Cause  error // may be nil
	Remedy string
}

func (e *Error) Error() string {
	msg := e.What
	if e.Kind != nil {
		msg += ": " + e.Kind.Error()
	}
	if e.Cause != nil {
		msg += " (" + e.Cause.Error() + ")"
	}
	if e.Remedy != "" {
		msg += "; " + e.Remedy
	}
	return msg
}

// Unwrap gives kind and cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
