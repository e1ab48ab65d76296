// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/price"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/store"
	"github.com/ringfence/ringfence/pkg/wire"
)

// maxPriceTables bounds the tables in use: a gateway holds all of them.
const maxPriceTables = 16

// priceBook is the prices in use: the tables of the store, read.
type priceBook struct {
	mu   sync.Mutex // one change at a time; guards what follows
	book *price.Book
}

// open reads what the store has. A table that this build does not read leaves its
// models without a price; the daemon starts all the same.
func (p *priceBook) open(s store.Prices, log *slog.Logger) {
	list, err := s.Prices(context.Background())
	if err != nil {
		log.Error("no prices", "error", err)
		return
	}
	var tables []price.Table
	for _, t := range list {
		table, err := price.Parse(t.Version, []byte(t.Text))
		if err != nil {
			log.Error("a price table in the store is not in use", "version", t.Version, "error", err)
			continue
		}
		tables = append(tables, table)
	}
	if p.book, err = price.NewBook(tables...); err != nil {
		log.Error("no prices", "error", err)
	}
}

// send tells a gateway the prices.
func (p *priceBook) send(ctx context.Context, to caller) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sendLocked(ctx, to)
}

func (p *priceBook) sendLocked(ctx context.Context, to caller) error {
	f, err := wire.Seal("prices", p.book.AppendSealed(nil))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, err := to.Call(ctx, wire.TypePrices, nil, f); err != nil {
		return fmt.Errorf("prices: %w", err)
	}
	return nil
}

// Prices lists the tables.
func (b *backend) Prices(ctx context.Context) (api.Prices, error) {
	res := api.Prices{Tables: []api.PriceTable{}}
	list, err := b.d.store.Prices(ctx)
	if err != nil {
		return res, err
	}
	kept := map[string]store.PriceTable{}
	for _, t := range list {
		kept[t.Version] = t
	}
	b.d.prices.mu.Lock()
	defer b.d.prices.mu.Unlock()
	for _, t := range b.d.prices.book.Tables() {
		res.Tables = append(res.Tables, priceTable(&t, kept[t.Version]))
	}
	return res, nil
}

func priceTable(t *price.Table, k store.PriceTable) api.PriceTable {
	return api.PriceTable{Version: t.Version, Effective: t.Effective, Source: t.Source, Models: len(t.Models), Added: time.Unix(0, k.Added).UTC(), Author: k.Author}
}

// AddPrices stores a table and tells the gateway.
func (b *backend) AddPrices(ctx context.Context, c *api.Caller, r *api.PricesRequest) (api.PriceTable, error) {
	d := b.d
	t, err := price.Parse(r.File, []byte(r.Text)) // before the lock: it takes as long as it is large
	if err != nil {
		return api.PriceTable{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	d.prices.mu.Lock()
	defer d.prices.mu.Unlock()
	if !b.rightsNow(c).Node(policy.RightAdmin) {
		return api.PriceTable{}, lostRole()
	}
	if len(d.prices.book.Tables()) >= maxPriceTables {
		return api.PriceTable{}, api.Errorf(api.CodeConflict, "there are %d price tables, which is all that is kept", maxPriceTables).
			WithRemedy("remove an old one with `ringfence prices remove VERSION`; what was priced by it stays as it is")
	}
	kept := store.PriceTable{Version: t.Version, Text: r.Text, Added: time.Now().UnixNano(), Author: scope.Operator(c.UID, d.people.name(c.UID))}
	book, err := price.NewBook(append([]price.Table{t}, d.prices.book.Tables()...)...)
	if err == nil {
		err = d.store.PutPrices(ctx, kept)
	}
	if errors.Is(err, store.ErrConflict) || book == nil {
		return api.PriceTable{}, api.Errorf(api.CodeConflict, "there is a price table %s already", t.Version).
			WithRemedy("give the new one another version (records of calls name it), or remove the old one with `ringfence prices remove " + t.Version + "`")
	}
	if err != nil {
		return api.PriceTable{}, err
	}
	d.prices.book = book
	return priceTable(&t, kept), b.pricesInUse(ctx)
}

// RemovePrices forgets a table and tells the gateway.
func (b *backend) RemovePrices(ctx context.Context, c *api.Caller, version string) error {
	d := b.d
	d.prices.mu.Lock()
	defer d.prices.mu.Unlock()
	if !b.rightsNow(c).Node(policy.RightAdmin) {
		return lostRole()
	}
	if err := d.store.DeletePrices(ctx, version); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return api.Errorf(api.CodeNotFound, "there is no price table %q", version).WithRemedy("`ringfence prices list` shows those in use")
		}
		return err
	}
	var left []price.Table
	for _, t := range d.prices.book.Tables() {
		if t.Version != version {
			left = append(left, t)
		}
	}
	book, err := price.NewBook(left...)
	if err != nil {
		return err
	}
	d.prices.book = book
	return b.pricesInUse(ctx)
}

// pricesInUse tells the gateway; the caller holds the lock of the prices.
func (b *backend) pricesInUse(ctx context.Context) error {
	if err := b.d.prices.sendLocked(ctx, b.d.gateway); err != nil {
		return api.Errorf(api.CodeUnavailable, "stored, but the gateway does not have it yet: %v", err).WithRemedy("it is told when it is started again")
	}
	return nil
}
