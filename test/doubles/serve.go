// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server is a running HTTP(S) server.
type Server struct {
	Addr net.Addr
	srv  *http.Server
	done chan struct{}
}

// Serve serves h in clear on ln (nil: a free port of 127.0.0.1).
func Serve(ln net.Listener, h http.Handler) (*Server, error) {
	ln, err := listen(ln)
	if err != nil {
		return nil, err
	}
	return start(ln, h, nil), nil
}

func listen(ln net.Listener) (net.Listener, error) {
	if ln != nil {
		return ln, nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("double: %w", err)
	}
	return ln, nil
}

func start(ln net.Listener, h http.Handler, cfg *tls.Config) *Server {
	s := &Server{Addr: ln.Addr(), done: make(chan struct{}),
		srv: &http.Server{Handler: h, TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 30 * time.Second}}
	go func() {
		defer close(s.done)
		if cfg != nil {
			_ = s.srv.ServeTLS(ln, "", "")
			return
		}
		_ = s.srv.Serve(ln)
	}()
	return s
}

// Close ends the server and every connection.
func (s *Server) Close() error {
	err := s.srv.Close()
	<-s.done
	return err
}

// CA is a certificate authority for one test.
type CA struct {
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey

	mu   sync.Mutex
	next int64
}

// NewCA makes a CA that lives for a day.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("double CA: %w", err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Ringfence test double CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("double CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("double CA: %w", err)
	}
	return &CA{cert: cert, der: der, key: key, next: 2}, nil
}

// PEM returns the CA's certificate.
func (c *CA) PEM() []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.der}) }

// Pool returns a pool that trusts this CA alone.
func (c *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// Certificate issues a leaf for names and addresses.
func (c *CA) Certificate(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("double leaf: %w", err)
	}
	c.mu.Lock()
	serial := c.next
	c.next++
	c.mu.Unlock()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, &key.PublicKey, c.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("double leaf: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, c.der}, PrivateKey: key}, nil
}

// Serve serves h over TLS (HTTP/1.1 and HTTP/2) on ln (nil: a free port of
// 127.0.0.1) under the given names.
func (c *CA) Serve(ln net.Listener, h http.Handler, names ...string) (*Server, error) {
	leaf, err := c.Certificate(names...)
	if err != nil {
		return nil, err
	}
	if ln, err = listen(ln); err != nil {
		return nil, err
	}
	return start(ln, h, &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// Page is a plain web server: it says what it was asked, so that a test can
// see that a request arrived and how.
func Page(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		n, _ := io.Copy(io.Discard, io.LimitReader(req.Body, 64<<20))
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, "server=%s method=%s path=%s host=%s proto=%s body=%d\n", name, req.Method, req.URL.Path, req.Host, req.Proto, n)
	})
}

// Echo is a TCP server that sends back what it gets.
type Echo struct {
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	count int
	bytes int64
}

// NewEcho serves on ln (nil: a free port of 127.0.0.1).
func NewEcho(ln net.Listener) (*Echo, error) {
	ln, err := listen(ln)
	if err != nil {
		return nil, err
	}
	e := &Echo{ln: ln, conns: map[net.Conn]struct{}{}}
	e.wg.Add(1)
	go e.accept()
	return e, nil
}

// Addr is where it listens.
func (e *Echo) Addr() net.Addr { return e.ln.Addr() }

// Count is how many connections arrived.
func (e *Echo) Count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count
}

// Bytes is how many bytes arrived on all of them.
func (e *Echo) Bytes() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes
}

// arrived counts what an echo reads.
type arrived struct {
	net.Conn
	e *Echo
}

func (a arrived) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	a.e.mu.Lock()
	a.e.bytes += int64(n)
	a.e.mu.Unlock()
	return n, err
}

func (e *Echo) accept() {
	defer e.wg.Done()
	for {
		c, err := e.ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		e.mu.Lock()
		e.conns[c] = struct{}{}
		e.count++
		e.mu.Unlock()
		e.wg.Add(1)
		go func() {
			defer e.wg.Done()
			_, _ = io.Copy(c, arrived{c, e})
			_ = c.Close()
			e.mu.Lock()
			delete(e.conns, c)
			e.mu.Unlock()
		}()
	}
}

// Close ends the listener and every connection.
func (e *Echo) Close() error {
	err := e.ln.Close()
	e.mu.Lock()
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	e.wg.Wait()
	return err
}

// Eventually waits until f returns true, and says whether it did before ctx
// ended.
func Eventually(ctx context.Context, f func() bool) bool {
	for !f() {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}
