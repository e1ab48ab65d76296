// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

type worker struct {
	addrs   map[string]string // resolved hosts
	kept    map[string][]*conn
	held    []*http.Response // streams, and the clients that opened them
	holders []*http.Client
}

func client(in io.Reader, out io.Writer) error {
	w := &worker{addrs: map[string]string{}, kept: map[string][]*conn{}}
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var j job.Job
		if err := dec.Decode(&j); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("job: %w", err)
		}
		r, err := w.run(j)
		if err != nil {
			r.Error = err.Error()
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
}

// target is where and how the requests of a job go.
type target struct {
	addr    string
	tls     *tls.Config // nil: in clear
	request []byte
}

func (w *worker) target(j job.Job) (*target, error) {
	u, err := url.Parse(j.URL)
	if err != nil {
		return nil, err
	}
	t := &target{addr: j.Dial}
	if t.addr == "" {
		if t.addr, err = w.resolve(u); err != nil {
			return nil, err
		}
	}
	if u.Scheme == "https" {
		// No session cache: each connection makes a whole handshake.
		t.tls = &tls.Config{ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
		if j.Roots != "" {
			pem, err := os.ReadFile(j.Roots)
			if err != nil {
				return nil, err
			}
			t.tls.RootCAs = x509.NewCertPool()
			t.tls.RootCAs.AppendCertsFromPEM(pem)
		}
	}
	var b strings.Builder
	method := "GET"
	if j.Body != "" {
		method = "POST"
	}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\n", method, u.RequestURI(), u.Host)
	if j.Body != "" {
		fmt.Fprintf(&b, "Authorization: Bearer ringfence-placeholder\r\nAccept: */*\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", len(j.Body))
	}
	b.WriteString("\r\n" + j.Body)
	t.request = []byte(b.String())
	return t, nil
}

func (w *worker) resolve(u *url.URL) (string, error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	key := net.JoinHostPort(u.Hostname(), port)
	if w.addrs[key] == "" {
		ips, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", u.Hostname())
		if err != nil {
			return "", err
		}
		w.addrs[key] = net.JoinHostPort(ips[0].String(), port)
	}
	return w.addrs[key], nil
}

func (w *worker) run(j job.Job) (job.Result, error) {
	if j.Kind == job.DNS {
		return spread(j, func(int) (int64, error) {
			_, err := net.DefaultResolver.LookupIP(context.Background(), "ip4", j.URL)
			return 0, err
		})
	}
	if j.Kind == job.Datagram {
		return w.datagrams(j)
	}
	switch j.Kind {
	case job.Hold:
		return job.Result{}, w.hold(j)
	case job.LetGo:
		return job.Result{}, w.letGo()
	}
	t, err := w.target(j)
	if err != nil {
		return job.Result{}, err
	}
	if j.Kind == job.Connect {
		return spread(j, func(int) (int64, error) {
			c, err := t.open()
			if err != nil {
				return 0, err
			}
			defer c.Close()
			return c.ask(t.request)
		})
	}
	switch j.Kind {
	case job.Stream:
		return w.stream(t.addr, j)
	case job.Knock:
		return spread(j, func(int) (int64, error) { return knock(t.addr) })
	}
	key := j.URL + " " + j.Dial
	for len(w.kept[key]) < j.Conns {
		c, err := t.open()
		if err != nil {
			return job.Result{}, err
		}
		w.kept[key] = append(w.kept[key], c)
	}
	if j.Kind == job.Paced {
		return paced(j, w.kept[key], t.request)
	}
	r, err := spread(j, func(k int) (int64, error) { return w.kept[key][k].ask(t.request) })
	if tc, ok := w.kept[key][0].Conn.(*tls.Conn); ok {
		r.Cipher = tls.CipherSuiteName(tc.ConnectionState().CipherSuite)
	}
	return r, err
}

// spread does N things on Conns goroutines and takes the time of each.
func spread(j job.Job, do func(k int) (int64, error)) (job.Result, error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var r job.Result
	var failed error
	var took []time.Duration
	start := time.Now()
	for k := range j.Conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []time.Duration
			var bytes int64
			var err error
			for i := k; i < j.N && err == nil; i += j.Conns {
				var n int64
				at := time.Now()
				n, err = do(k)
				mine = append(mine, time.Since(at))
				bytes += n
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			r.Bytes += bytes
			if err != nil && failed == nil {
				failed = err
			}
		}()
	}
	wg.Wait()
	all := time.Since(start)
	if failed != nil {
		return job.Result{}, failed
	}
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	r.P50, r.P99 = us(took[len(took)/2]), us(took[len(took)*99/100])
	r.PerSec = float64(len(took)) / all.Seconds()
	r.Gbit = float64(r.Bytes) * 8 / 1e9 / all.Seconds()
	return r, nil
}

// conn is one connection with what was read ahead.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func (t *target) open() (*conn, error) {
	c, err := net.Dial("tcp4", t.addr)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		tc := tls.Client(c, t.tls)
		if err := tc.Handshake(); err != nil {
			c.Close()
			return nil, err
		}
		c = tc
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

// ask sends one request and reads its whole answer.
func (c *conn) ask(request []byte) (int64, error) {
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n == 0) {
		err = fmt.Errorf("answer %s with %d bytes", resp.Status, n)
	}
	return n, err
}
