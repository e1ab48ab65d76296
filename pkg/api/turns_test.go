// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// One user has one turn, all together have so many, root has no need of any, and
// nothing is kept of who was served or gave up.
func TestTurns(t *testing.T) {
	turns := newTurns(2)
	ctx := context.Background()
	take := func(uid uint32) func() {
		t.Helper()
		done, err := turns.take(ctx, uid)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	refused := func(uid uint32) {
		t.Helper()
		if _, err := turns.take(gone, uid); !errors.Is(err, context.Canceled) {
			t.Errorf("uid %d has a turn: %v", uid, err)
		}
	}
	one := take(1)
	refused(1)      // a second of the same user
	two := take(2)  // another user's
	refused(3)      // there are two
	root := take(0) // who waits for nobody
	root()
	one()
	take(3)()
	two()
	if len(turns.of) != 0 || len(turns.slots) != 0 {
		t.Errorf("%d users and %d turns are left", len(turns.of), len(turns.slots))
	}
}

func TestTurnsOfMany(t *testing.T) {
	turns := newTurns(3)
	var now, most [5]atomic.Int32 // of each user, and of all
	enter := func(i int) {
		for n := now[i].Add(1); ; {
			m := most[i].Load()
			if n <= m || most[i].CompareAndSwap(m, n) {
				return
			}
		}
	}
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			uid := 1 + i%4
			done, err := turns.take(context.Background(), uint32(uid))
			if err != nil {
				t.Error(err)
				return
			}
			enter(uid)
			enter(0)
			now[uid].Add(-1)
			now[0].Add(-1)
			done()
		})
	}
	all.Wait()
	for uid := range most {
		if limit := []int32{3, 1, 1, 1, 1}[uid]; most[uid].Load() > limit {
			t.Errorf("%d: %d at once", uid, most[uid].Load())
		}
	}
	if len(turns.of) != 0 {
		t.Errorf("%d users are left", len(turns.of))
	}
}

// Who applies documents has one turn, however many connections it has; another's comes
// meanwhile.
func TestApplyingTakesTurns(t *testing.T) {
	needRootTest(t)
	f := newFake()
	f.access = func() Access { return bound(t, "org:acme policy-author uid:64010", "org:acme policy-author uid:64011") }
	entered, leave := make(chan uint32, 8), make(chan struct{})
	f.onApply = func(c *Caller) {
		entered <- c.UID
		if c.UID == 64010 {
			<-leave
		}
	}
	at := serve(t, f, Options{})
	const body = `{"documents":[{"file":"a.yaml","text":"x"}]}`
	apply := func(uid uint32) net.Conn {
		conn := connectAs(t, at, uid)
		_ = conn.SetDeadline(time.Now().Add(time.Minute)) // what hangs fails
		if _, err := fmt.Fprintf(conn, "PUT /v1/policy HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			t.Error(err)
		}
		return conn
	}
	answered := func(conn net.Conn) {
		t.Helper()
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
	}
	one := apply(64010)
	if uid := <-entered; uid != 64010 {
		t.Fatal(uid)
	}
	two := apply(64010)
	answered(apply(64011))
	if uid := <-entered; uid != 64011 || len(entered) != 0 {
		t.Errorf("%d came next, and %d more", uid, len(entered))
	}
	close(leave)
	answered(one)
	answered(two)
}
