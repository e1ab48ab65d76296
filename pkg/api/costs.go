// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/scope"
)

// CostBackend knows what model calls cost, and the prices.
type CostBackend interface {
	// Costs lists the rows of the ledger that q chooses, one for each day,
	// principal, provider and model.
	Costs(ctx context.Context, q CostQuery) (Costs, error)

	Prices(ctx context.Context) (Prices, error)
	// AddPrices puts a table into use. One of its version must not be there.
	AddPrices(ctx context.Context, c *Caller, r *PricesRequest) (PriceTable, error)
	RemovePrices(ctx context.Context, c *Caller, version string) error
}

// CostKeys are what costs can be summed up by.
var CostKeys = []string{"day", "org", "team", "agent", "provider", "model"}

// CostQuery chooses model calls; "" means all.
type CostQuery struct {
	From, To        string   // days of UTC as 2026-11-30, both included
	By              []string // of CostKeys; none: all of them
	Org, Team       string
	Agent           string
	Provider, Model string
}

// Costs answers GET /v1/costs?from=DAY&to=DAY&by=KEY,KEY&org=...
type Costs struct {
	By   []string  `json:"by"`
	Rows []CostRow `json:"rows"` // in the order of their keys
	// Within are the scopes whose calls are in the rows, none for all of the node.
	Within []string `json:"within,omitempty"`
	// SummedUpTo is the last event that is in the sums. Missed were gone from the
	// event log before they could be.
	SummedUpTo uint64 `json:"summedUpTo"`
	Missed     uint64 `json:"missed,omitempty"`
}

// CostRow is what some calls used and cost. Keys that were not asked for are "".
// Agents choose names of models, as far as policy allows them.
type CostRow struct {
	Day      string `json:"day,omitempty"`
	Org      string `json:"org,omitempty"`
	Team     string `json:"team,omitempty"`
	Agent    string `json:"agent,omitempty"`
	Provider string `json:"provider,omitempty"`
	Model    string `json:"model,omitempty"`

	Calls     uint64 `json:"calls"`
	Failed    uint64 `json:"failed"`
	Estimated uint64 `json:"estimated"` // of which tokens were counted here, not reported
	Unpriced  uint64 `json:"unpriced"`  // of which the cost is not known: it is not in CostNanoUSD
	// CostNanoUSD is billionths of a US dollar.
	CostNanoUSD uint64 `json:"costNanoUSD"`

	TokensIn     uint64 `json:"tokensIn"`
	TokensOut    uint64 `json:"tokensOut"`
	Cached       uint64 `json:"tokensCached"` // of TokensIn; so are the next two
	CacheWrite5m uint64 `json:"tokensCacheWrite5m"`
	CacheWrite1h uint64 `json:"tokensCacheWrite1h"`
	Reasoning    uint64 `json:"tokensReasoning"` // of TokensOut
	AudioIn      uint64 `json:"tokensAudioIn"`
	AudioOut     uint64 `json:"tokensAudioOut"`
	ImageIn      uint64 `json:"tokensImageIn"`
	ImageOut     uint64 `json:"tokensImageOut"`
	Images       uint64 `json:"images"`
	WebSearches  uint64 `json:"webSearches"`
}

// Key is the value of one of CostKeys.
func (r *CostRow) Key(name string) *string {
	switch name {
	case "day":
		return &r.Day
	case "org":
		return &r.Org
	case "team":
		return &r.Team
	case "agent":
		return &r.Agent
	case "provider":
		return &r.Provider
	}
	return &r.Model
}

// sums are places of all numbers.
func (r *CostRow) sums() []*uint64 {
	return []*uint64{&r.Calls, &r.Failed, &r.Estimated, &r.Unpriced, &r.CostNanoUSD, &r.TokensIn, &r.TokensOut, &r.Cached, &r.CacheWrite5m, &r.CacheWrite1h,
		&r.Reasoning, &r.AudioIn, &r.AudioOut, &r.ImageIn, &r.ImageOut, &r.Images, &r.WebSearches}
}

// SumCosts adds rows up by some of their keys.
func SumCosts(rows []CostRow, by []string) []CostRow {
	out, at := []CostRow{}, map[[6]string]int{}
	for i := range rows {
		var k [6]string
		for j, name := range by {
			k[j] = *rows[i].Key(name)
		}
		n, ok := at[k]
		if !ok {
			n = len(out)
			at[k], out = n, append(out, CostRow{})
			for _, name := range by {
				*out[n].Key(name) = *rows[i].Key(name)
			}
		}
		to := out[n].sums()
		for j, v := range rows[i].sums() {
			if *to[j] += *v; *to[j] < *v {
				*to[j] = ^uint64(0)
			}
		}
	}
	slices.SortFunc(out, func(a, b CostRow) int {
		for _, name := range CostKeys {
			if c := cmp.Compare(*a.Key(name), *b.Key(name)); c != 0 {
				return c
			}
		}
		return 0
	})
	return out
}

// sees says whether a row is of a principal that the caller sees.
func (r Rights) seesCost(row *CostRow) bool {
	if r.SeesNode() {
		return true
	}
	p := scope.Principal{Org: row.Org, Team: row.Team, Agent: row.Agent}
	return p.Org != "" && r.mayIn(policy.RightSee, p.String())
}

func (s *Server) costs(w http.ResponseWriter, r *call) error {
	q, err := costQuery(r.URL.Query())
	if err != nil {
		return err
	}
	res, err := s.o.Backend.Costs(r.Context(), q)
	rights := r.caller.Rights
	res.By, res.Within = q.By, nil
	if !rights.SeesNode() {
		res.Within, res.Missed = rights.within(), 0
	}
	res.Rows = SumCosts(slices.DeleteFunc(res.Rows, func(row CostRow) bool { return !rights.seesCost(&row) }), q.By)
	return answer(w, res, err)
}

func costQuery(v url.Values) (q CostQuery, err error) {
	q = CostQuery{From: v.Get("from"), To: v.Get("to"), Org: v.Get("org"), Team: v.Get("team"), Agent: v.Get("agent"), Provider: v.Get("provider"), Model: v.Get("model"), By: CostKeys}
	for _, day := range []string{q.From, q.To} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return q, Errorf(CodeBadRequest, "%q is no day such as 2026-11-30", day)
		}
	}
	if by := v.Get("by"); by != "" {
		q.By = strings.Split(by, ",")
	}
	for i, name := range q.By {
		if !slices.Contains(CostKeys, name) || slices.Contains(q.By[:i], name) {
			return q, Errorf(CodeBadRequest, "costs are summed up by each once of %s, not by %q", strings.Join(CostKeys, ", "), name)
		}
	}
	return q, nil
}

// Costs sums up what model calls cost.
func (c *Client) Costs(ctx context.Context, q CostQuery) (Costs, error) {
	v := url.Values{}
	for _, f := range [][2]string{{"from", q.From}, {"to", q.To}, {"by", strings.Join(q.By, ",")}, {"org", q.Org}, {"team", q.Team}, {"agent", q.Agent},
		{"provider", q.Provider}, {"model", q.Model}} {
		setText(v, f[0], f[1])
	}
	return call1[Costs](ctx, c, "GET", "/v1/costs?"+v.Encode(), nil)
}
