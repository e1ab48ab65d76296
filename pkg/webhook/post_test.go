// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/doubles"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

func target(url string) *Target { return &Target{URL: url, Secret: secret, Timeout: 5 * time.Second} }

// TestWhatAReceiverGets: the double checks the signature by itself.
func TestWhatAReceiverGets(t *testing.T) {
	rec := doubles.NewReceiver(secret)
	srv := httptest.NewTLSServer(rec)
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	p := newPoster(target(srv.URL+"/hook?x=1"), roots, time.Now)
	for _, body := range []string{`{"a":1}`, strings.Repeat("x", MaxBody)} {
		if r := p.post(context.Background(), "id-1", []byte(body)); r != (Result{Delivered, 204}) {
			t.Errorf("%v", r)
		}
		got := rec.Last()
		if got.ID != "id-1" || string(got.Body) != body || got.Err != nil {
			t.Errorf("%s %v", got.ID, got.Err)
		}
		later := time.Now().Add(10 * time.Minute)
		for name, replay := range map[string]error{
			"later":           rec.Check(got.Header, got.Body, later),
			"another body":    rec.Check(got.Header, append([]byte(" "), got.Body...), time.Now()),
			"another id":      rec.Check(with(got.Header, HeaderDelivery, "id-2"), got.Body, time.Now()),
			"another time":    rec.Check(with(got.Header, HeaderTimestamp, "1"), got.Body, time.Unix(1, 0)),
			"no signature":    rec.Check(with(got.Header, HeaderSignature, ""), got.Body, time.Now()),
			"another secret":  doubles.NewReceiver([]byte("another-secret-of-32-bytes-and-so")).Check(got.Header, got.Body, time.Now()),
			"a moved divider": rec.Check(with(with(got.Header, HeaderDelivery, "id-1."), HeaderTimestamp, got.Header.Get(HeaderTimestamp)), got.Body, time.Now()),
		} {
			if replay == nil {
				t.Errorf("%s: it was taken", name)
			}
		}
	}
}

func with(h http.Header, key, value string) http.Header {
	h = h.Clone()
	h.Set(key, value)
	return h
}

func TestOutcomesOfAttempts(t *testing.T) {
	release := make(chan struct{})
	var followed bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/500":
			w.WriteHeader(500)
		case "/429":
			w.WriteHeader(429)
		case "/404":
			w.WriteHeader(404)
		case "/moved":
			http.Redirect(w, r, "/followed", http.StatusTemporaryRedirect)
		case "/followed":
			followed = true
		case "/hangs":
			<-release
		case "/cut":
			panic(http.ErrAbortHandler)
		}
	}))
	defer srv.Close()
	defer close(release)
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	for url, want := range map[string]Result{
		srv.URL + "/ok": {Delivered, 200}, srv.URL + "/500": {Busy, 500}, srv.URL + "/429": {Busy, 429}, srv.URL + "/404": {Rejected, 404}, srv.URL + "/moved": {Rejected, 307},
		srv.URL + "/hangs": {Late, 0}, srv.URL + "/cut": {Unreachable, 0}, "http://127.0.0.1:1/": {Unreachable, 0}, tls.URL: {Untrusted, 0},
	} {
		to := target(url)
		if strings.HasSuffix(url, "/hangs") {
			to.Timeout = 50 * time.Millisecond
		}
		if got := newPoster(to, nil, time.Now).post(context.Background(), "i", []byte("{}")); got != want {
			t.Errorf("%s: %v, not %v", url, got, want)
		}
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

func TestTargets(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://hooks.example/x": true, "http://127.0.0.1:8080/x": true, "http://[::1]/x": true, "https://10.0.0.1:9443/": true,
		"http://hooks.example/x": false, "http://10.0.0.1/": false, "http://localhost/": false, "http://127.0.0.1.example/": false, "ftp://a/": false, "https:///x": false, "https:a": false,
		"https://u:p@a/": false, "https://a/#f": false, "": false, "http://127.0.0.1\x00/": false, "//a/b": false,
	} {
		if err := target(url).Valid(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
	for name, spoil := range map[string]func(*Target){
		"a short secret": func(x *Target) { x.Secret = x.Secret[:MinSecret-1] }, "no secret": func(x *Target) { x.Secret = nil }, "a long secret": func(x *Target) { x.Secret = make([]byte, MaxSecret+1) },
		"no timeout": func(x *Target) { x.Timeout = 0 }, "a long timeout": func(x *Target) { x.Timeout = MaxTimeout + 1 },
	} {
		x := target("https://a/")
		if spoil(x); x.Valid() == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := onlyLoopback("tcp", "10.0.0.1:80", nil); err == nil {
		t.Error("plain http leaves the machine")
	}
}
