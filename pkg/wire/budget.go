// SPDX-License-Identifier: Apache-2.0

package wire

// Messages about money. Amounts are nano-dollars, times nanoseconds since 1970.
// There is one question for everything, BudgetExchange, and a gateway has one of
// them under way at a time: so what it settles, gives back and asks for has an
// order. Each is written so that it may come twice.

// BudgetExchange is what a gateway settled, gives back and asks for. The keeper does
// it in that order, durably, all or nothing.
type BudgetExchange struct {
	Holder   int64  // the gateway's incarnation
	First    uint64 // number of the first of Settled; the others follow
	Settled  []BudgetSettled
	Returned []BudgetReturned
	Asked    []BudgetAsked
}

// BudgetSettled is what a call cost, in every account that counts it.
type BudgetSettled struct {
	Leases           []int64
	Reserved, Actual int64
	Estimated        bool
}

// BudgetReturned makes a lease smaller: so much of it may be spent from now on,
// what was spent included. Ended is the end of it: nothing is under way.
type BudgetReturned struct {
	Lease, Granted int64
	Ended          bool
}

// BudgetAsked asks for room in one account of a sandbox. Have is how much of Lease
// the gateway knows to be granted: what is beyond, a reply that was lost gave.
type BudgetAsked struct {
	Sandbox     uint32
	Budget      [16]byte // policy.BudgetKey
	Model       string   // "" where models have no accounts of their own
	Lease, Have int64
	Least, Most int64 // below Least nothing is of use
}

// BudgetReply answers: Given has one item for each of Asked.
type BudgetReply struct {
	Applied uint64 // settlements up to here are durable
	Given   []BudgetGiven
}

// BudgetGiven is a lease as it is now. The zero value gives nothing.
type BudgetGiven struct {
	Lease   int64 // 0: the budget does not count this sandbox, and Reason says why; -1: nothing is left
	Granted int64
	Others  int64 // spent in the window, without this lease
	Left    int64 // of the account, that nobody holds
	Limit   int64 // with what it was increased by
	Until   int64 // no new call after it: the next window, or step of it, has begun
	Reset   int64 // when the account may have more room
	Expires int64 // no new call after it without asking again
	Reason  string
}

// BudgetJournal with a descriptor gives a gateway memory in which it keeps what is
// under way from now on, and its number; without one it asks. The answer is the
// number that it has, 0 for none, and a descriptor of its memory.
type BudgetJournal struct{ Holder int64 }

// Bounds of one exchange, and of the accounts that one call counts in.
const (
	MaxBudgetLeases   = 16
	MaxBudgetSettled  = 128
	MaxBudgetReturned = 256
	MaxBudgetAsked    = 64
	MaxBudgetModel    = 256
)

// I64 appends an integer that may be negative.
func (e *Encoder) I64(v int64) { e.U64(uint64(v)) }

// I64 reads an integer that may be negative.
func (d *Decoder) I64() int64 { return int64(d.U64()) }

// amount reads one that may not.
func (d *Decoder) amount() int64 {
	v := d.I64()
	if v < 0 && d.err == nil {
		d.err = &ProtocolError{"an amount below zero"}
	}
	return v
}

// Encode writes the exchange.
func (m *BudgetExchange) Encode() ([]byte, error) {
	var e Encoder
	e.I64(m.Holder)
	e.U64(m.First)
	e.Count(len(m.Settled), MaxBudgetSettled)
	for i := range m.Settled {
		s := &m.Settled[i]
		e.Count(len(s.Leases), MaxBudgetLeases)
		for _, l := range s.Leases {
			e.I64(l)
		}
		e.I64(s.Reserved)
		e.I64(s.Actual)
		e.Bool(s.Estimated)
	}
	e.Count(len(m.Returned), MaxBudgetReturned)
	for _, r := range m.Returned {
		e.I64(r.Lease)
		e.I64(r.Granted)
		e.Bool(r.Ended)
	}
	e.Count(len(m.Asked), MaxBudgetAsked)
	for i := range m.Asked {
		a := &m.Asked[i]
		e.U32(a.Sandbox)
		e.B = append(e.B, a.Budget[:]...)
		e.Str(a.Model, MaxBudgetModel)
		for _, v := range []int64{a.Lease, a.Have, a.Least, a.Most} {
			e.I64(v)
		}
	}
	return e.Payload()
}

// Decode reads it.
func (m *BudgetExchange) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = BudgetExchange{Holder: d.I64(), First: d.U64()}
	for n := d.Count(MaxBudgetSettled); n > 0 && d.err == nil; n-- {
		var s BudgetSettled
		for k := d.Count(MaxBudgetLeases); k > 0 && d.err == nil; k-- {
			s.Leases = append(s.Leases, d.I64())
		}
		s.Reserved, s.Actual, s.Estimated = d.amount(), d.amount(), d.Bool()
		m.Settled = append(m.Settled, s)
	}
	for n := d.Count(MaxBudgetReturned); n > 0 && d.err == nil; n-- {
		m.Returned = append(m.Returned, BudgetReturned{d.I64(), d.amount(), d.Bool()})
	}
	for n := d.Count(MaxBudgetAsked); n > 0 && d.err == nil; n-- {
		a := BudgetAsked{Sandbox: d.U32()}
		copy(a.Budget[:], d.take(len(a.Budget)))
		a.Model = d.Str(MaxBudgetModel)
		a.Lease, a.Have, a.Least, a.Most = d.I64(), d.amount(), d.amount(), d.amount()
		m.Asked = append(m.Asked, a)
	}
	return d.End()
}

func (g *BudgetGiven) numbers() []*int64 {
	return []*int64{&g.Lease, &g.Granted, &g.Others, &g.Left, &g.Limit, &g.Until, &g.Reset, &g.Expires}
}

// Encode writes the reply.
func (m *BudgetReply) Encode() ([]byte, error) {
	var e Encoder
	e.U64(m.Applied)
	e.Count(len(m.Given), MaxBudgetAsked)
	for i := range m.Given {
		for _, v := range m.Given[i].numbers() {
			e.I64(*v)
		}
		e.Str(m.Given[i].Reason, MaxName)
	}
	return e.Payload()
}

// Decode reads it.
func (m *BudgetReply) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = BudgetReply{Applied: d.U64()}
	for n := d.Count(MaxBudgetAsked); n > 0 && d.err == nil; n-- {
		var g BudgetGiven
		for _, v := range g.numbers() {
			*v = d.I64()
		}
		g.Reason = d.Str(MaxName)
		m.Given = append(m.Given, g)
	}
	return d.End()
}

// Encode of a BudgetJournal cannot fail: it is of fixed size.
func (m BudgetJournal) Encode() []byte {
	var e Encoder
	e.I64(m.Holder)
	return e.B
}

// Decode reads it.
func (m *BudgetJournal) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = BudgetJournal{Holder: d.I64()}
	return d.End()
}
