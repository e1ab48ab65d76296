// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
)

// proxy is the least that a gateway has to do for a model call: read the body,
// parse it for the model, swap the credential, forward without buffering. It
// prints its address and serves until stdin ends. roots is the file of those that a
// target that speaks TLS is verified with; "" where it speaks in clear.
func proxy(listen, target, cert, key, roots string) error {
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	secret := os.Getenv("THE_KEY")
	behind := &http.Transport{MaxIdleConnsPerHost: 64}
	if roots != "" {
		pem, err := os.ReadFile(roots)
		if err != nil {
			return err
		}
		behind.ForceAttemptHTTP2 = true
		behind.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
		behind.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
	}
	rp := &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport:     behind,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Header.Set("Authorization", "Bearer "+secret)
		},
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 32<<20))
		var call struct {
			Model  string `json:"model"`
			Stream bool   `json:"stream"`
		}
		if err == nil {
			err = json.Unmarshal(body, &call)
		}
		if err != nil || call.Model == "" {
			http.Error(w, "not a model call", http.StatusBadRequest)
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		rp.ServeHTTP(w, req)
	})
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = ln.Close()
	}()
	srv := &http.Server{Handler: h}
	if err := srv.ServeTLS(ln, cert, key); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
