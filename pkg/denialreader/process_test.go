// SPDX-License-Identifier: Apache-2.0

package denialreader

import (
	"reflect"
	"testing"

	"github.com/ringfence/ringfence/pkg/audit/landlock"
	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/keeper"
)

func TestWhatIsNotHandedOverIsTold(t *testing.T) {
	deaf := true
	got := map[string]uint64{}
	l := losses{post: func(e *event.Event) bool {
		if !deaf && e.Kind == event.KindLoss {
			got[e.Activity] += e.Lost
		}
		return !deaf
	}}
	denials := []landlock.Denial{{Record: landlock.Record{Blockers: []string{"fs.read_file"}}}, {Record: landlock.Record{Blockers: []string{"fs.execute"}}}}
	l.send(denials)
	l.tell(landlock.Stats{Overruns: 1})
	deaf = false
	l.send(denials)
	for range 2 { // told once
		l.tell(landlock.Stats{Overruns: 3, Malformed: 4, Others: 9})
	}
	want := map[string]uint64{keeper.LossUnsent: 2, keeper.LossOverrun: 3, keeper.LossBroken: 4}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
