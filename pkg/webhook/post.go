// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Headers of a delivery.
const (
	HeaderDelivery  = "Ringfence-Delivery"
	HeaderTimestamp = "Ringfence-Timestamp"
	HeaderSignature = "Ringfence-Signature"
)

// poster makes attempts at one target.
type poster struct {
	t      *Target
	client *http.Client
	now    func() time.Time
}

// newPoster needs a valid target. Certificates are verified, redirects are not
// followed, no proxy is asked, and plain http ends at this machine whatever its
// address says by then.
func newPoster(t *Target, roots *x509.CertPool, now func() time.Time) *poster {
	dial := &net.Dialer{Timeout: t.Timeout, Resolver: &net.Resolver{PreferGo: true}} // the C library's opens more than the filter lets
	if strings.HasPrefix(t.URL, "http:") {
		dial.Control = onlyLoopback
	}
	tr := &http.Transport{DialContext: dial.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10}
	return &poster{t: t, now: now, client: &http.Client{Transport: tr, Timeout: t.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().IsLoopback() {
		return errors.New("plain http to another machine")
	}
	return nil
}

// post makes one attempt.
func (p *poster) post(ctx context.Context, id string, body []byte) Result {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.t.URL, bytes.NewReader(body))
	if err != nil {
		return Result{}
	}
	at := strconv.FormatInt(p.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "ringfence")
	req.Header.Set(HeaderDelivery, id)
	req.Header.Set(HeaderTimestamp, at)
	req.Header.Set(HeaderSignature, "sha256="+signature(p.t.Secret, at, id, body))
	resp, err := p.client.Do(req)
	if err != nil {
		return Result{Outcome: whyNot(err)}
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	_ = resp.Body.Close()
	return Result{statusOutcome(resp.StatusCode), uint16(resp.StatusCode)}
}

// signature is over the time too: what was recorded is not taken again later, by
// who looks at the time.
func signature(secret []byte, at, id string, body []byte) string {
	h := hmac.New(sha256.New, secret)
	for _, part := range []string{at, ".", id, "."} {
		h.Write([]byte(part))
	}
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

func statusOutcome(status int) Outcome {
	switch {
	case status >= 200 && status < 300:
		return Delivered
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests, status >= 500:
		return Busy
	}
	return Rejected
}

func whyNot(err error) Outcome {
	var cert *tls.CertificateVerificationError
	var timeout *url.Error
	switch {
	case errors.As(err, &cert):
		return Untrusted
	case errors.As(err, &timeout) && timeout.Timeout():
		return Late
	}
	return Unreachable
}
