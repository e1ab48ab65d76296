// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

// paced sends requests by the clock, on whichever connection is free. A request's
// time begins when it is its turn, so waiting for a connection counts.
func paced(j job.Job, conns []*conn, request []byte) (job.Result, error) {
	free := make(chan *conn, len(conns))
	for _, c := range conns {
		free <- c
	}
	took, errs := make([]time.Duration, j.N), make([]error, j.N)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range j.N {
		turn := start.Add(time.Duration(i) * time.Second / time.Duration(j.Rate))
		time.Sleep(time.Until(turn))
		wg.Add(1)
		go func() {
			defer wg.Done()
			c := <-free
			_, errs[i] = c.ask(request)
			free <- c
			took[i] = time.Since(turn)
		}()
	}
	wg.Wait()
	all := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return job.Result{}, err
		}
	}
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	return job.Result{P50: us(took[j.N/2]), P99: us(took[j.N*99/100]), PerSec: float64(j.N) / all.Seconds()}, nil
}

// hold opens streams and waits until each has said something.
func (w *worker) hold(j job.Job) error {
	clients := make([]*http.Client, j.Conns)
	for i := range clients {
		clients[i] = &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true}}
	}
	held, errs := make([]*http.Response, j.N), make([]error, j.N)
	var wg sync.WaitGroup
	open := func(i int) {
		defer wg.Done()
		held[i], errs[i] = openStream(clients[i%j.Conns], j)
	}
	for i := range j.N {
		wg.Add(1)
		if i < j.Conns { // one after the other, so that each has a connection
			open(i)
			continue
		}
		go open(i)
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	w.held, w.holders = held, clients
	return nil
}

func openStream(c *http.Client, j job.Job) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.Background())
	impatience := time.AfterFunc(2*time.Minute, cancel)
	defer impatience.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.URL, strings.NewReader(j.Body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer ringfence-placeholder")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return nil, fmt.Errorf("answer %s by %s", resp.Status, resp.Proto)
	}
	_, err = io.ReadFull(resp.Body, make([]byte, 1))
	return resp, err
}

// letGo reads the streams to their ends and closes their connections.
func (w *worker) letGo() error {
	var wg sync.WaitGroup
	errs := make([]error, len(w.held))
	for i, resp := range w.held {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && !strings.HasSuffix(string(b), "data: [DONE]\n\n") {
				err = fmt.Errorf("a stream ends with %q", b[max(len(b)-200, 0):])
			}
			errs[i] = err
		}()
	}
	wg.Wait()
	for _, c := range w.holders {
		c.CloseIdleConnections()
	}
	w.held, w.holders = nil, nil
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
