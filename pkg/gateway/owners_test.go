// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// However many come and take all they get, there is something left for the next.
func TestConnectionsAreSharedByOwner(t *testing.T) {
	const all = 1 << 12
	var o owners
	var list []*owner
	total := 0
	for uid := range uint32(4) {
		who := o.join(uid)
		list = append(list, who)
		n := 0
		for o.take(who, all) {
			n++
		}
		if n < all>>(2*uid)/2 {
			t.Errorf("owner %d gets %d", uid, n)
		}
		if total += n; total >= all {
			t.Fatalf("owner %d leaves nothing", uid)
		}
	}
	o.give(list[3])
	if !o.take(list[3], all) {
		t.Error("what was given back is gone")
	}
	for _, who := range list {
		for who.used > 0 {
			o.give(who)
		}
		o.leave(who)
	}
	if o.used != 0 || len(o.of) != 0 {
		t.Errorf("%d connections and %d owners are left", o.used, len(o.of))
	}
}

// stuckKeeper answers for sandboxes with small numbers only when it is let.
type stuckKeeper struct {
	fakeKeeper
	stuck chan struct{}

	count         sync.Mutex
	asked, others int
}

func (k *stuckKeeper) take(id uint32) {
	k.count.Lock()
	if id >= 100 {
		k.others++
		k.count.Unlock()
		return
	}
	k.asked++
	k.count.Unlock()
	<-k.stuck
}

func (k *stuckKeeper) Resolve(ctx context.Context, id uint32, _ string) (Resolution, error) {
	k.take(id)
	return Resolution{Allowed: true, Addr: netip.MustParseAddr("198.18.1.1")}, ctx.Err()
}

func (k *stuckKeeper) Leaf(_ context.Context, id uint32, _ string, _ *ecdsa.PublicKey) (leaf, ca []byte, err error) {
	k.take(id)
	return nil, nil, errors.New("none is signed here")
}

func (k *stuckKeeper) Approval(_ context.Context, q ApprovalQuestion) (ApprovalAnswer, error) {
	k.take(q.Sandbox)
	return ApprovalAnswer{}, nil
}

func (k *stuckKeeper) counted() (asked, others int) {
	k.count.Lock()
	defer k.count.Unlock()
	return k.asked, k.others
}

// Questions of one owner's sandboxes do not fill the way to the keeper.
func TestQuestionsAreSharedByOwner(t *testing.T) {
	for what, ask := range map[string]func(ctx context.Context, sb *sandbox, name string){
		"names":        func(ctx context.Context, sb *sandbox, name string) { _, _ = sb.resolve(ctx, name) },
		"certificates": func(_ context.Context, sb *sandbox, name string) { _, _ = sb.leaves.get(sb, name) },
		"approvals": func(ctx context.Context, sb *sandbox, name string) {
			_, _ = sb.askKeeper(ctx, nil, func(ctx context.Context, _ []string) (ApprovalAnswer, error) {
				return sb.g.opt.Keeper.Approval(ctx, ApprovalQuestion{Sandbox: sb.cfg.ID, Name: name})
			})
		},
	} {
		t.Run(what, func(t *testing.T) {
			k := &stuckKeeper{stuck: make(chan struct{})}
			g, err := New(Options{Keeper: k, Inference: stubInference{}})
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(context.Background())
			for id := range uint32(8) {
				sb := newSandbox(g, Sandbox{ID: id, Owner: 1})
				for i := range 64 {
					wg.Go(func() { ask(ctx, sb, fmt.Sprintf("x%d.test", i)) })
				}
			}
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if asked, _ := k.counted(); asked >= ownerAsks {
					break
				}
				if time.Now().After(end) {
					t.Fatal("too few questions are under way")
				}
			}
			ask(ctx, newSandbox(g, Sandbox{ID: 100, Owner: 2}), "x.test")
			if asked, others := k.counted(); asked != ownerAsks || others != 1 {
				t.Errorf("%d questions of one owner are under way, %d of another", asked, others)
			}
			cancel()
			close(k.stuck)
			wg.Wait()
		})
	}
}

// Connections of real sandboxes count for their owner, and are given back.
func TestAnOwnerLeavesConnectionsToOthers(t *testing.T) {
	r := newRig(t, relayPolicy, rigOptions{limits: Limits{Conns: 8, SandboxConns: 8}})
	r.echo("db.test", 5432, "")
	for range 6 {
		openRelay(t, r, "db.test", 5432)
	}
	if c, err := r.dial("db.test", 5432); err == nil {
		ended(t, c)
	}
	r.denied(codeConnections)
	if who := r.g.owners.join(7); !r.g.owners.take(who, 8) {
		t.Error("nothing is left for another")
	}
	r.g.RemoveSandbox(1)
	r.g.owners.mu.Lock()
	defer r.g.owners.mu.Unlock()
	if r.g.owners.used != 1 || r.g.owners.of[0] != nil {
		t.Errorf("%d connections are counted, and %v", r.g.owners.used, r.g.owners.of[0])
	}
}
