// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ringfence/ringfence/pkg/store"
)

func approvalOf(id, binding, state string, version uint64) store.Approval {
	a := store.Approval{ID: id, Sandbox: "s1", Binding: binding, State: state, Version: version, Created: 5, Body: []byte(`{"id":"` + id + `"}`)}
	if state != "pending" && state != "approved" {
		a.Ended = 100
	}
	return a
}

func put(t *testing.T, s *Store, list ...store.Approval) {
	t.Helper()
	if err := s.PutApprovals(context.Background(), list...); err != nil {
		t.Fatal(err)
	}
}

func refuses(t *testing.T, s *Store, list ...store.Approval) {
	t.Helper()
	if err := s.PutApprovals(context.Background(), list...); !errors.Is(err, store.ErrConflict) {
		t.Errorf("%+v was taken: %v", list, err)
	}
}

func TestApprovalsAreComparedAndSet(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	ctx := context.Background()
	put(t, s, approvalOf("a", "b1", "pending", 1))
	refuses(t, s, approvalOf("a", "b2", "pending", 1)) // an id twice
	refuses(t, s, approvalOf("b", "b1", "pending", 1)) // a binding that is pending twice
	refuses(t, s, approvalOf("a", "b1", "approved", 3))
	refuses(t, s, approvalOf("a", "b9", "approved", 2)) // what will run never changes
	refuses(t, s, approvalOf("c", "b1", "approved", 2)) // of what is not there
	refuses(t, s, approvalOf("d", "b4", "pending", 1), approvalOf("a", "b1", "approved", 3))
	if _, err := s.Approval(ctx, "d"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("half of a change was kept: %v", err)
	}
	put(t, s, approvalOf("a", "b1", "superseded", 2), approvalOf("b", "b1", "pending", 1)) // in this order
	refuses(t, s, approvalOf("a", "b1", "approved", 2))                                    // the second of two

	closeStore(t, s)
	s = open(t, dir)
	defer closeStore(t, s)
	a, err := s.Approval(ctx, "a")
	if err != nil || a.State != "superseded" || a.Version != 2 || a.Ended != 100 || string(a.Body) != `{"id":"a"}` {
		t.Errorf("%+v %v", a, err)
	}
}

func TestApprovalsAreFound(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	ctx := context.Background()
	for i, state := range []string{"pending", "approved", "denied", "consumed"} {
		a := approvalOf(fmt.Sprint(i), fmt.Sprint("b", i), state, 1)
		if a.Created = int64(i); a.Ended != 0 {
			a.Ended = int64(10 * i)
		}
		if i == 1 {
			a.Sandbox = "s2"
		}
		put(t, s, a)
	}
	for name, c := range map[string]struct {
		q    store.ApprovalQuery
		want string
	}{
		"all":           {store.ApprovalQuery{}, "3210"},
		"a sandbox":     {store.ApprovalQuery{Sandbox: "s1"}, "320"},
		"open":          {store.ApprovalQuery{EndedSince: math.MaxInt64}, "10"},
		"ended lately":  {store.ApprovalQuery{EndedSince: 30}, "310"},
		"both":          {store.ApprovalQuery{Sandbox: "s1", EndedSince: 30}, "30"},
		"the newest":    {store.ApprovalQuery{Limit: 2}, "32"},
		"nobody's":      {store.ApprovalQuery{Sandbox: "s1' OR 1"}, ""},
		"newest of one": {store.ApprovalQuery{Sandbox: "s1", Limit: 1}, "3"},
	} {
		list, err := s.Approvals(ctx, c.q)
		got := ""
		for _, a := range list {
			got += a.ID
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, not %q (%v)", name, got, c.want, err)
		}
	}
	n, err := s.PruneApprovals(ctx, 30)
	list, lerr := s.Approvals(ctx, store.ApprovalQuery{})
	if n != 1 || err != nil || len(list) != 3 || lerr != nil {
		t.Errorf("%d were forgotten, %d stay (%v %v)", n, len(list), err, lerr)
	}
}

func TestOneOfManyWins(t *testing.T) {
	s := open(t, t.TempDir())
	defer closeStore(t, s)
	put(t, s, approvalOf("a", "b", "approved", 1))
	var won atomic.Int32
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			err := s.PutApprovals(context.Background(), approvalOf("a", "b", "consumed", 2))
			if err == nil {
				won.Add(1)
			} else if !errors.Is(err, store.ErrConflict) {
				t.Error(err)
			}
		})
	}
	if all.Wait(); won.Load() != 1 {
		t.Errorf("%d have used what is for one", won.Load())
	}
}
