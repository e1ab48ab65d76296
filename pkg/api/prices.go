// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// MaxPricesBody bounds a table of prices on its way, in bytes.
const MaxPricesBody = 12 << 20

// Prices answers GET /v1/prices.
type Prices struct {
	Tables []PriceTable `json:"tables"` // the newest first
}

// PriceTable is one table of prices in use, without the prices themselves.
type PriceTable struct {
	Version   string    `json:"version"`
	Effective time.Time `json:"effective"`
	Source    string    `json:"source"`
	Models    int       `json:"models"`
	Added     time.Time `json:"added"`
	Author    string    `json:"author"`
}

// PricesRequest is the body of PUT /v1/prices.
type PricesRequest struct {
	File string `json:"file"` // its name, for messages
	Text string `json:"text"` // a table as pkg/price writes it
}

func (s *Server) listPrices(w http.ResponseWriter, r *call) error {
	res, err := s.o.Backend.Prices(r.Context())
	return answer(w, res, err)
}

func (s *Server) addPrices(w http.ResponseWriter, r *call) error {
	var req PricesRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if req.Text == "" {
		return Errorf(CodeBadRequest, "the price table is empty")
	}
	r.note("add prices")
	res, err := s.o.Backend.AddPrices(r.Context(), r.caller, &req)
	if err == nil {
		r.note("add prices %s", res.Version)
	}
	return answer(w, res, err)
}

func (s *Server) removePrices(w http.ResponseWriter, r *call) error {
	version := r.PathValue("version")
	r.note("remove prices %s", version)
	return answer(w, struct{}{}, s.o.Backend.RemovePrices(r.Context(), r.caller, version))
}

// Prices lists the tables in use.
func (c *Client) Prices(ctx context.Context) (Prices, error) {
	return call1[Prices](ctx, c, "GET", "/v1/prices", nil)
}

// AddPrices puts a table into use.
func (c *Client) AddPrices(ctx context.Context, r PricesRequest) (PriceTable, error) {
	return call1[PriceTable](ctx, c, "PUT", "/v1/prices", r)
}

// RemovePrices takes one out of use.
func (c *Client) RemovePrices(ctx context.Context, version string) error {
	_, err := call1[struct{}](ctx, c, "DELETE", "/v1/prices/"+url.PathEscape(version), nil)
	return err
}
