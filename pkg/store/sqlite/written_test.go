// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"slices"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

// What people other than root wrote since a time is counted, by scope.
func TestWritten(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	ctx := context.Background()
	var number uint64
	write := func(uid int64, owner, in, before, after string) {
		t.Helper()
		number++
		c := store.Change{Key: store.Key{Owner: owner, File: in, Kind: "Policy", Name: in, Scope: in}}
		var texts []string
		if before != "" {
			c.Before = store.Hash(before)
		}
		if after != "" {
			c.After, texts = store.Hash(after), []string{after}
		}
		r := store.Revision{Number: number, Time: int64(number), Author: store.Author{UID: uid, Grants: map[int64]string{7: "org:*"}[uid]}, Action: "apply", Changes: []store.Change{c}}
		if err := s.AddRevision(ctx, r, texts, false); err != nil {
			t.Fatal(err)
		}
	}
	write(7, store.OwnerAPI, "org:a", "", "old")
	write(7, store.OwnerAPI, "org:a", "old", "fünf") // 2: five bytes
	write(0, store.OwnerAPI, "org:a", "fünf", "root's")
	write(8, store.OwnerAPI, "org:b", "", "b")
	write(-1, store.OwnerDirectory, "org:b", "", "of the directory")
	write(8, store.OwnerAPI, "org:b", "b", "")
	for since, want := range map[int64][]store.Written{
		0: {{Scope: "org:b", Changes: 2, Bytes: 1}, {Grants: "org:*", Scope: "org:a", Changes: 2, Bytes: 8}},
		2: {{Scope: "org:b", Changes: 2, Bytes: 1}, {Grants: "org:*", Scope: "org:a", Changes: 1, Bytes: 5}},
		6: {{Scope: "org:b", Changes: 1}},
		7: nil,
	} {
		got, err := s.Written(ctx, since)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("since %d: %+v, want %+v (%v)", since, got, want, err)
		}
	}
}
