// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"math"
	"reflect"
	"testing"
)

func fullExchange() BudgetExchange {
	return BudgetExchange{Holder: 7, First: 9,
		Settled:  []BudgetSettled{{Leases: []int64{1, 2}, Reserved: 5, Actual: 6, Estimated: true}, {Leases: []int64{3}}},
		Returned: []BudgetReturned{{Lease: 1, Granted: 4}, {Lease: 2, Ended: true}},
		Asked:    []BudgetAsked{{Sandbox: 3, Budget: [16]byte{1, 15: 2}, Model: "m", Lease: 1, Have: 4, Least: 1, Most: math.MaxInt64}, {}}}
}

func TestBudgetRoundTrip(t *testing.T) {
	for _, want := range []BudgetExchange{{}, fullExchange()} {
		b, err := want.Encode()
		var got BudgetExchange
		if err == nil {
			err = got.Decode(b)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v %v", got, err)
		}
		for i := range b {
			if err := got.Decode(b[:i]); err == nil {
				t.Errorf("cut short at %d it was read", i)
			}
		}
		if err := got.Decode(append(b, 0)); err == nil {
			t.Error("with something behind it was read")
		}
	}
	want := BudgetReply{Applied: 4, Given: []BudgetGiven{{Lease: 1, Granted: 2, Others: 3, Left: 4, Limit: 5, Until: 7, Reset: 8, Expires: 9, Reason: "r"}, {Lease: -1}}}
	b, err := want.Encode()
	var got BudgetReply
	if err == nil {
		err = got.Decode(b)
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	var j BudgetJournal
	if err := j.Decode(BudgetJournal{Holder: -3}.Encode()); err != nil || j.Holder != -3 {
		t.Error(j, err)
	}
}

func TestBudgetBounds(t *testing.T) {
	var big BudgetExchange
	for range MaxBudgetSettled {
		big.Settled = append(big.Settled, BudgetSettled{Leases: make([]int64, MaxBudgetLeases)})
	}
	big.Returned = make([]BudgetReturned, MaxBudgetReturned)
	for range MaxBudgetAsked {
		big.Asked = append(big.Asked, BudgetAsked{Model: string(make([]byte, MaxBudgetModel))})
	}
	if b, err := big.Encode(); err != nil || len(b) > MaxPayload {
		t.Errorf("the largest exchange is %d bytes: %v", len(b), err)
	}
	var reply BudgetReply
	for range MaxBudgetAsked {
		reply.Given = append(reply.Given, BudgetGiven{Reason: string(make([]byte, MaxName))})
	}
	if b, err := reply.Encode(); err != nil || len(b) > MaxPayload {
		t.Errorf("the largest reply is %d bytes: %v", len(b), err)
	}
	for name, m := range map[string]*BudgetExchange{
		"settlements": {Settled: make([]BudgetSettled, MaxBudgetSettled+1)}, "returns": {Returned: make([]BudgetReturned, MaxBudgetReturned+1)},
		"questions": {Asked: make([]BudgetAsked, MaxBudgetAsked+1)}, "leases": {Settled: []BudgetSettled{{Leases: make([]int64, MaxBudgetLeases+1)}}},
	} {
		if _, err := m.Encode(); err == nil {
			t.Errorf("too many %s were written", name)
		}
	}
	for name, m := range map[string]*BudgetExchange{"settled": {Settled: []BudgetSettled{{Actual: -1}}}, "reserved": {Settled: []BudgetSettled{{Reserved: -1}}}, "given back": {Returned: []BudgetReturned{{Granted: -1}}}, "asked": {Asked: []BudgetAsked{{Most: -1}}}} {
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var pe *ProtocolError
		if err := new(BudgetExchange).Decode(b); !errors.As(err, &pe) {
			t.Errorf("an amount below zero was %s: %v", name, err)
		}
	}
}

// Whatever comes is an error or an exchange that encodes to the same bytes.
func FuzzBudgetExchange(f *testing.F) {
	m := fullExchange()
	b, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var m BudgetExchange
		if m.Decode(b) != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || string(again) != string(b) {
			t.Errorf("%x became %x: %v", b, again, err)
		}
	})
}
