// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/ringfence/ringfence/pkg/wire"
)

type answers struct {
	fds []*os.File
	err error
}

func (a answers) Call(context.Context, wire.Type, []byte, ...*os.File) ([]byte, []*os.File, error) {
	return nil, a.fds, a.err
}

// Only a gateway that says so holds no listeners: silence says nothing.
func TestThatTheGatewayHoldsNoneIsItsAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		none bool
	}{
		"it answered":              {&wire.Failure{Msg: "no such sandbox"}, true},
		"the connection ended":     {wire.ErrClosed, false},
		"the time was up":          {context.DeadlineExceeded, false},
		"what it said is no words": {&wire.ProtocolError{Msg: "x"}, false},
	} {
		l, err := takeListeners(t.Context(), answers{err: tt.err}, 7)
		if l != nil || (err == nil) != tt.none {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := takeListeners(t.Context(), answers{fds: []*os.File{f}}, 7); l != nil || err != nil {
		t.Errorf("one descriptor: %v, %v", l, err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("a descriptor that is no listener was kept")
	}
}
