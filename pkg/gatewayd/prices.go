// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
	"github.com/ringfence/ringfence/pkg/wire"
)

// prices are those that the keeper has sent last.
type prices struct{ book atomic.Pointer[price.Book] }

// most is what a request can cost at most: see inference.Options.Price. Where nothing
// bounds its output, what the model can give counts, as the price table says.
func (p *prices) most(prov *policy.Provider, upstream string, input, output uint64) (int64, bool) {
	m, _, ok := inference.FindPrice(p.book.Load(), prov, upstream, time.Now())
	if !ok || !m.Known() {
		return 0, false
	}
	if output == 0 {
		output = m.Model.MaxOutput
	}
	return m.Model.Bound(input, output)
}

// onPrices puts other prices into use.
func (p *process) onPrices(_ []byte, fds []*os.File) ([]byte, []*os.File, error) {
	if len(fds) != 1 {
		return nil, nil, &wire.ProtocolError{Msg: "prices without their file"}
	}
	b, err := wire.ReadSealed(fds[0])
	if err != nil {
		return nil, nil, err
	}
	book, err := price.OpenSealed(b)
	if err != nil {
		return nil, nil, err
	}
	p.prices.book.Store(book)
	return nil, nil, nil
}
