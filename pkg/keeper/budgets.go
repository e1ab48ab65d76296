// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"

	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/wire"
)

var errNoBudgets = errors.New("this keeper keeps no budgets")

// budgets hands an exchange to the ledger. What a gateway settled before its
// connection ended counts too.
func (d *Desk) budgets(ctx context.Context, payload []byte) ([]byte, error) {
	var q wire.BudgetExchange
	if err := q.Decode(payload); err != nil {
		return nil, err
	}
	if d.Budgets == nil {
		return nil, errNoBudgets
	}
	r, err := d.Budgets(ctx, &q)
	if err != nil {
		return nil, err
	}
	return r.Encode()
}

// Living is whom a living sandbox acts for. Before the sandboxes of a former keeper
// were taken over it waits.
func (d *Desk) Living(ctx context.Context, number uint32) (scope.Principal, error) {
	sb, err := d.living(ctx, number)
	if err != nil {
		return scope.Principal{}, err
	}
	return sb.Principal, nil
}
