// SPDX-License-Identifier: Apache-2.0

package budget_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/budget"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/store/sqlite"
	"github.com/ringfence/ringfence/pkg/wire"
)

// These tests are several processes: each role is this test binary with a variable
// set. Descriptor 3 is the socket between keeper and gateway.
const roleVar = "RINGFENCE_BUDGET_TEST"

func TestMain(m *testing.M) {
	var err error
	switch role, arg, _ := strings.Cut(os.Getenv(roleVar), " "); role {
	case "":
		os.Exit(m.Run())
	case "keeper":
		err = runKeeper(arg)
	case "gateway":
		err = runGateway()
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

const (
	limit    = 40 * policy.NanoPerUSD
	callMost = policy.NanoPerUSD / 100
	workers  = 16
)

var kim = scope.Principal{Org: "acme", Team: "a", Agent: "kim"}

// law is the policy of these tests.
type law struct{ list []*policy.Budget }

func newLaw() (*law, error) {
	docs, problems := policy.ParseWhole("f", []byte(fmt.Sprintf("apiVersion: ringfence.dev/v1\nkind: Policy\nmetadata: {name: d}\nscope: org:acme\nbudgets:\n  - {id: year, limit: %d USD, window: year}\n  - {id: agent, limit: 1000 USD, window: 30d, per: [agent, model]}\n", limit/policy.NanoPerUSD)))
	if len(problems) > 0 {
		return nil, problems[0]
	}
	s, _ := policy.Compile(1, docs)
	return &law{s.AllBudgets()}, nil
}

func (l *law) Budget(k policy.BudgetKey) (*policy.Budget, bool) {
	for _, b := range l.list {
		if b.Key() == k {
			return b, true
		}
	}
	return nil, false
}

func (l *law) Principal(context.Context, uint32) (scope.Principal, error) { return kim, nil }

// openLedger opens the ledger of a directory.
func openLedger(dir string) (*budget.Ledger, *law, store.Store, error) {
	l, err := newLaw()
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := sqlite.Open(context.Background(), sqlite.Options{Dir: dir, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, nil, err
	}
	ledger, err := budget.NewLedger(context.Background(), budget.Options{Store: s, Policy: l, Now: time.Now, Record: func(context.Context, []budget.Notice) error { return nil }})
	return ledger, l, s, err
}

func answer(l *budget.Ledger) wire.Handler {
	return func(ctx context.Context, _ wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
		wire.CloseAll(fds)
		var q wire.BudgetExchange
		if err := q.Decode(payload); err != nil {
			return nil, nil, err
		}
		r, err := l.Exchange(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		b, err := r.Encode()
		return b, nil, err
	}
}

// runKeeper answers until it is killed.
func runKeeper(dir string) error {
	l, _, _, err := openLedger(dir)
	if err != nil {
		return err
	}
	conn, err := wire.FromFile(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	return wire.NewPeer(conn, answer(l), wire.Inflight).Serve(context.Background())
}

// asker is the gateway's way to whichever keeper there is.
type asker struct {
	mu   sync.Mutex
	peer *wire.Peer
}

func (a *asker) set(p *wire.Peer) { a.mu.Lock(); defer a.mu.Unlock(); a.peer = p }

func (a *asker) Exchange(ctx context.Context, q *wire.BudgetExchange) (r wire.BudgetReply, err error) {
	b, err := q.Encode()
	if err != nil {
		return r, err
	}
	for ctx.Err() == nil {
		a.mu.Lock()
		p := a.peer
		a.mu.Unlock()
		if p != nil {
			reply, _, err := p.Call(ctx, wire.TypeBudgets, b)
			if err == nil {
				return r, r.Decode(reply)
			}
			if no := (*wire.Failure)(nil); errors.As(err, &no) {
				return r, err
			}
		}
		time.Sleep(time.Millisecond)
	}
	return r, ctx.Err()
}

// runGateway makes calls until it is killed, and says on standard output what is
// certain of each: R reserved, S sent, D done and what it cost.
func runGateway() error {
	conn, err := wire.FromFile(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(4, 0, budget.SlotsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	slots, err := budget.NewSlots(mem, 1)
	if err != nil {
		return err
	}
	peer := wire.NewPeer(conn, nil, wire.Inflight)
	go func() { _ = peer.Serve(context.Background()) }()
	a := &asker{}
	a.set(peer)
	l, err := newLaw()
	if err != nil {
		return err
	}
	t := budget.NewTill(a, time.Now)
	t.Open(1, slots)
	go t.Run(context.Background(), func(err error) { fmt.Fprintln(os.Stderr, err) })
	for i := range workers {
		go func() {
			r := rand.New(rand.NewPCG(uint64(i), uint64(os.Getpid())))
			for {
				call(t, l, r, fmt.Sprint("m", i%3), func(what string, amount int64) {
					_, _ = os.Stdout.WriteString(fmt.Sprintf("%s %d %d\n", what, i, amount))
				})
			}
		}()
	}
	select {}
}

// call is one call.
func call(t *budget.Till, l *law, r *rand.Rand, model string, say func(string, int64)) {
	most := 1 + r.Int64N(callMost)
	res, ref := t.Reserve(context.Background(), budget.Count(1, kim, l.list), budget.Ask{Model: model, Least: most, Most: most})
	if ref != nil {
		time.Sleep(time.Millisecond)
		return
	}
	say("R", most)
	if r.IntN(8) == 0 {
		res.Release()
		say("D", 0)
		return
	}
	res.Sent()
	actual := r.Int64N(most + 1)
	say("S", actual)
	if r.IntN(4) == 0 {
		time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
	}
	res.Settle(actual, false)
	say("D", actual)
}

// start runs a role, with the socket that it inherits and more.
func start(t *testing.T, role string, stdout io.Writer, more ...*os.File) (*exec.Cmd, *wire.Conn) {
	t.Helper()
	ours, theirs, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	cmd.ExtraFiles, cmd.Stderr, cmd.Stdout = append([]*os.File{theirs}, more...), os.Stderr, stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, ours
}

// spentOf is what a budget's accounts spent, and what is leased.
func spentOf(l *budget.Ledger, law *law, id string) (spent, leased int64) {
	for _, s := range l.Standings(law.list) {
		if s.Budget.ID == id {
			spent += s.Spent
			leased += s.Leased
		}
	}
	return spent, leased
}

func TestKillingTheGateway(t *testing.T) {
	for n := range 6 {
		l, law, st, err := openLedger(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		id, err := l.NewHolder(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.MemfdCreate("calls", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		mem := os.NewFile(uintptr(fd), "calls")
		if err := mem.Truncate(int64(budget.SlotsSize)); err != nil {
			t.Fatal(err)
		}
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd, conn := start(t, "gateway", in, mem)
		in.Close()
		peer := wire.NewPeer(conn, relabel(answer(l), id), wire.Inflight)
		served := make(chan struct{})
		go func() { defer close(served); _ = peer.Serve(context.Background()) }()

		// Not the time but how much it said decides when it is killed.
		lines := bufio.NewScanner(out)
		var low, open int64 // certain costs; what calls that did not end reserved
		last := map[int][2]int64{}
		for said := 0; lines.Scan(); said++ {
			var what string
			var worker int
			var amount int64
			if _, err := fmt.Sscanf(lines.Text(), "%s %d %d", &what, &worker, &amount); err != nil {
				break // cut short
			}
			switch what {
			case "R":
				last[worker] = [2]int64{amount, 0}
			case "S":
				last[worker] = [2]int64{last[worker][0], amount}
			case "D":
				low += amount
				delete(last, worker)
			}
			if said == 300+n*500 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		<-served
		for _, c := range last {
			low += c[1]
			open += c[0] - c[1]
		}
		open += workers * callMost // reserved, or sent, and not yet said
		if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
			t.Fatalf("a process that was killed still has its memory: %v", err)
		}
		under, err := budget.ReadSlots(mem, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(context.Background(), id, under); err != nil {
			t.Fatal(err)
		}
		for _, b := range []string{"year", "agent"} {
			spent, leased := spentOf(l, law, b)
			if spent < low || spent > low+open || leased != 0 {
				t.Errorf("%s: spent %d, calls cost %d to %d; %d leased", b, spent, low, low+open, leased)
			}
		}
		mem.Close()
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// relabel gives the exchanges of a gateway, which calls itself 1, its number.
func relabel(h wire.Handler, id int64) wire.Handler {
	return func(ctx context.Context, t wire.Type, payload []byte, fds []*os.File) ([]byte, []*os.File, error) {
		var q wire.BudgetExchange
		if err := q.Decode(payload); err != nil {
			return nil, nil, err
		}
		q.Holder = id
		b, err := q.Encode()
		if err != nil {
			return nil, nil, err
		}
		return h(ctx, t, b, fds)
	}
}

func TestKillingTheKeeper(t *testing.T) {
	dir := t.TempDir()
	l, law, st, err := openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := l.NewHolder(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(-1, 0, budget.SlotsSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := budget.NewSlots(mem, id)
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{}
	till := budget.NewTill(a, time.Now)
	till.Open(id, slots)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { till.Run(ctx, func(err error) { t.Log(err) }) })

	var mu sync.Mutex
	var cost int64
	done := make(chan struct{}, 1<<16)
	var calls sync.WaitGroup
	ending := make(chan struct{})
	for i := range workers {
		calls.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for {
				select {
				case <-ending:
					return
				default:
				}
				call(till, law, r, fmt.Sprint("m", i%3), func(what string, amount int64) {
					if what == "D" {
						mu.Lock()
						cost += amount
						mu.Unlock()
						done <- struct{}{}
					}
				})
			}
		})
	}
	for n := range 8 {
		cmd, conn := start(t, "keeper "+dir, os.Stdout)
		peer := wire.NewPeer(conn, nil, wire.Inflight)
		served := make(chan struct{})
		go func() { defer close(served); _ = peer.Serve(context.Background()) }()
		a.set(peer)
		for range 40 + 60*n {
			<-done
		}
		a.set(nil)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		<-served
		for len(done) > 0 {
			<-done
		}
	}
	cmd, conn := start(t, "keeper "+dir, os.Stdout)
	peer := wire.NewPeer(conn, nil, wire.Inflight)
	go func() { _ = peer.Serve(context.Background()) }()
	a.set(peer)
	close(ending)
	calls.Wait()
	if err := till.Finish(context.Background()); err != nil {
		t.Fatal(err)
	}
	stop()
	running.Wait()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	l, law, st, err = openLedger(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, b := range []string{"year", "agent"} {
		if spent, leased := spentOf(l, law, b); spent != cost || leased != 0 {
			t.Errorf("%s: spent %d, calls cost %d; %d leased", b, spent, cost, leased)
		}
	}
}
