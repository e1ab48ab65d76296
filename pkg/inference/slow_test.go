// SPDX-License-Identifier: Apache-2.0

package inference_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/policy"
)

// stuck is a client that reads nothing for a while, of a long answer.
type stuck struct {
	*httptest.ResponseRecorder
	wait time.Duration
}

func (s *stuck) Write(b []byte) (int, error) {
	time.Sleep(s.wait)
	s.wait = 0
	return s.ResponseRecorder.Write(b)
}

// byContext is a body that ends with its request.
type byContext struct {
	req   *http.Request
	first io.Reader
}

func (b byContext) Read(p []byte) (int, error) {
	if n, _ := b.first.Read(p); n > 0 {
		return n, nil
	}
	<-b.req.Context().Done()
	return 0, b.req.Context().Err()
}

func (byContext) Close() error { return nil }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// A client that reads slowly is not the provider's fault.
func TestAClientThatDoesNotReadSetsNobodyAside(t *testing.T) {
	p := newPlaces(t, setup{change: func(p *policy.Provider) { p.Timeouts.Idle = 20 * time.Millisecond }}, "a")
	red := inference.New(inference.Options{})
	call := p.call
	call.Host, call.Dialect = openAIHost, "openai"
	var last event.Event
	call.Record = func(e event.Event) { last = e }
	call.Transport = func(*policy.Provider) http.RoundTripper {
		return roundTrip(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: -1, Header: http.Header{"Content-Type": {"text/event-stream"}}, Request: req,
				Body: byContext{req, strings.NewReader("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n")}}, nil
		})
	}
	for range 6 {
		req := httptest.NewRequest("POST", "https://"+openAIHost+"/v1/chat/completions", strings.NewReader(`{"model":"m","stream":true,"messages":[]}`))
		req.Header.Set("Content-Type", "application/json")
		w := &stuck{httptest.NewRecorder(), 60 * time.Millisecond}
		func() {
			defer func() {
				if v := recover(); v != http.ErrAbortHandler {
					t.Errorf("%v", v)
				}
			}()
			red.ServeHTTP(w, req, call)
		}()
		if w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	for _, l := range red.Places() {
		if l.State != 0 {
			t.Errorf("%+v", l)
		}
	}
	if last.ReasonCode != "client-gone" {
		t.Errorf("%+v", last)
	}
}
