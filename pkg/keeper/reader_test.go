// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/wire"
)

func newReaderDesk() (*readerDesk, *fakeLog, *[]*event.Event) {
	log, taken := &fakeLog{}, &[]*event.Event{}
	return &readerDesk{o: &ReaderOptions{Log: log, Now: func() time.Time { return testNow },
		Take: func(e *event.Event) { *taken = append(*taken, e) }}}, log, taken
}

// A reader that was taken over can claim which process was refused which path.
// All the rest of an event is the keeper's.
func TestTheReaderSaysOnlyWhatADenialNeeds(t *testing.T) {
	common := event.Event{Time: testNow, Source: "denial-reader", Layer: "landlock", ReasonCode: "landlock", Verdict: event.Denied,
		Activity: "fs.read_file", Count: 3, PID: 77, Exe: "/bin/sh", Comm: "sh"}
	file, reach, network := common, common, common
	file.Kind, file.Path, file.Reason = event.KindFile, "/etc/shadow", "the file rules of the profile do not allow it"
	reach.Kind, reach.Object, reach.Reason = event.KindSyscall, "fs.read_file", "it would reach a process or socket outside the sandbox"
	network.Kind, network.Reason = event.KindKernelDenial, "the network rules of the profile do not allow it"
	network.Proto, network.DstAddr, network.DstPort = "tcp", "192.0.2.1", 443
	for _, want := range []event.Event{file, reach, network} {
		d, log, taken := newReaderDesk()
		if _, _, err := d.handle(context.Background(), wire.TypeAppend, batch(forged(want.Kind)), nil); err != nil {
			t.Errorf("%s: %v", want.Kind, err)
			continue
		}
		if len(*taken) != 1 || !reflect.DeepEqual(*(*taken)[0], want) {
			t.Errorf("%s: taken\n%+v, want\n%+v", want.Kind, *(*taken)[0], want)
		}
		valid(t, (*taken)[0])
		if evs := log.take(); len(evs) > 0 {
			t.Errorf("%s: recorded as hostile: %+v", want.Kind, evs[0])
		}
	}
}

func TestALossOfTheReaderIsOfNoSandbox(t *testing.T) {
	d, _, taken := newReaderDesk()
	e := forged(event.KindLoss)
	e.Activity = LossOverrun
	if _, _, err := d.handle(context.Background(), wire.TypeAppend, batch(e), nil); err != nil {
		t.Fatal(err)
	}
	want := event.Event{Kind: event.KindLoss, Time: testNow, Source: "denial-reader", Layer: "landlock", Verdict: event.Observed,
		Activity: LossOverrun, Lost: 5, Reason: readerLosses[LossOverrun]}
	if !reflect.DeepEqual(*(*taken)[0], want) {
		t.Errorf("%+v", *(*taken)[0])
	}
}

func TestHostileMessagesOfTheReader(t *testing.T) {
	odd := forged(event.KindFile)
	odd.Activity = "fs.read\nfile"
	nowhere := forged(event.KindKernelDenial)
	nowhere.DstAddr = "example.com"
	lost := forged(event.KindLoss)
	d, log, taken := newReaderDesk()
	n := 0
	send := func(name string, typ wire.Type, payload []byte) {
		n++
		if _, _, err := d.handle(context.Background(), typ, payload, nil); !errors.As(err, new(*wire.ProtocolError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	send("another message", wire.TypeResolve, batch(forged(event.KindFile)))
	send("nothing", wire.TypeAppend, nil)
	send("two at once", wire.TypeAppend, batch(forged(event.KindFile), forged(event.KindFile)))
	send("bytes behind it", wire.TypeAppend, append(batch(forged(event.KindFile)), 0))
	send("no event", wire.TypeAppend, []byte{1, 0, 9, 9})
	send("odd blocker", wire.TypeAppend, batch(odd))
	send("no address", wire.TypeAppend, batch(nowhere))
	send("unknown loss", wire.TypeAppend, batch(lost))
	for _, k := range event.Kinds() {
		if readerKinds[k] == nil {
			send(k.String(), wire.TypeAppend, batch(forged(k)))
		}
	}
	if len(*taken) > 0 {
		t.Errorf("taken: %+v", (*taken)[0])
	}
	evs := log.take()
	if len(evs) != 1 || evs[0].Kind != event.KindTamper || evs[0].Object != "denial-reader" || evs[0].Count != 1 {
		t.Fatalf("%d messages gave %+v", n, evs)
	}
	valid(t, evs[0])
	d.o.Now = func() time.Time { return testNow.Add(hostileEvery) }
	send("later", wire.TypeDrain, nil)
	if evs := log.take(); len(evs) != 1 || evs[0].Count != uint64(n-1) {
		t.Errorf("those in between are not counted: %+v", evs)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(uint8(wire.TypeAppend), batch(forged(event.KindFile)))
	f.Add(uint8(wire.TypeAppend), batch(forged(event.KindKernelDenial)))
	f.Add(uint8(wire.TypeAppend), batch(event.Event{Kind: event.KindLoss, Activity: LossUnsent, Lost: 1}))
	f.Add(uint8(0), []byte{1, 0})
	f.Fuzz(func(t *testing.T, typ uint8, b []byte) {
		d, log, taken := newReaderDesk()
		_, _, err := d.handle(context.Background(), wire.Type(typ), b, nil)
		if err != nil {
			if len(*taken) > 0 || len(log.take()) != 1 {
				t.Errorf("%v: %d events were taken", err, len(*taken))
			}
			return
		}
		e := (*taken)[0]
		if len(*taken) != 1 || e.Source != readerName || e.Sandbox != "" || e.Scope != "" || e.Verdict == event.Allowed || e.Rule != "" || e.Time.After(testNow) {
			t.Errorf("%x was taken as %+v", b, e)
		}
		valid(t, e)
	})
}
