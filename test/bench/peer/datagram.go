// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

// datagrams sends one datagram after the other on each of Conns sockets and
// waits for the answer to each, which must be as long.
func (w *worker) datagrams(j job.Job) (job.Result, error) {
	u, err := url.Parse(j.URL)
	if err != nil {
		return job.Result{}, err
	}
	addr := j.Dial
	if addr == "" {
		if addr, err = w.resolve(u); err != nil {
			return job.Result{}, err
		}
	}
	conns := make([]net.Conn, j.Conns)
	for i := range conns {
		if conns[i], err = net.Dial("udp4", addr); err != nil {
			return job.Result{}, err
		}
		defer conns[i].Close() //nolint:errcheck // all of them at the end
	}
	ask := func(k int) (int64, error) {
		var buf [1 << 16]byte
		c := conns[k]
		for try := 1; ; try++ { // one that is lost counts with the time that takes to see
			if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
				return 0, err
			}
			if _, err := c.Write([]byte(j.Body)); err != nil {
				return 0, err
			}
			n, err := c.Read(buf[:])
			if errors.Is(err, os.ErrDeadlineExceeded) && try < 5 {
				continue
			}
			if err == nil && n != len(j.Body) {
				err = fmt.Errorf("%d bytes sent, %d back", len(j.Body), n)
			}
			return int64(n), err
		}
	}
	for k := range conns { // each flow begins before the clock runs
		if _, err := ask(k); err != nil {
			return job.Result{}, err
		}
	}
	return spread(j, ask)
}
