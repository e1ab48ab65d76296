// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// NPM is a small package registry: packuments and tarballs, enough for
// `npm install --registry URL`.
type NPM struct {
	mu       sync.Mutex
	packages map[string]npmPackage
	asked    []string
}

type npmPackage struct {
	version string
	tarball []byte
	deps    map[string]string
}

// NewNPM returns an empty registry; serve it with [Serve] or [CA.Serve].
func NewNPM() *NPM { return &NPM{packages: map[string]npmPackage{}} }

// Add publishes a package whose index.js holds code.
func (n *NPM) Add(name, version, code string, deps map[string]string) error {
	manifest, err := json.Marshal(map[string]any{"name": name, "version": version, "main": "index.js", "dependencies": deps})
	if err != nil {
		return fmt.Errorf("npm double: %w", err)
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for _, f := range []struct {
		name string
		data []byte
	}{{"package/package.json", manifest}, {"package/index.js", []byte(code)}} {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("npm double: %w", err)
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("npm double: %w", err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("npm double: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("npm double: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.packages[name] = npmPackage{version: version, tarball: buf.Bytes(), deps: deps}
	return nil
}

// Asked returns the paths asked for so far.
func (n *NPM) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.asked...)
}

// ServeHTTP answers packuments and tarballs.
func (n *NPM) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, req.Method+" "+req.URL.Path)
	if req.Method != http.MethodGet {
		http.Error(w, `{"error":"read-only"}`, http.StatusMethodNotAllowed)
		return
	}
	name, err := url.PathUnescape(strings.TrimPrefix(req.URL.Path, "/"))
	if err != nil {
		http.NotFound(w, req)
		return
	}
	if pkg, file, ok := strings.Cut(name, "/-/"); ok {
		p, found := n.packages[pkg]
		if !found || !strings.HasSuffix(file, ".tgz") {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(p.tarball)
		return
	}
	p, found := n.packages[name]
	if !found {
		http.Error(w, `{"error":"Not found"}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(p.packument(name, req))
}

func (p npmPackage) packument(name string, req *http.Request) map[string]any {
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	s1, s5 := sha1.Sum(p.tarball), sha512.Sum512(p.tarball)
	base := name[strings.LastIndexByte(name, '/')+1:]
	version := map[string]any{"name": name, "version": p.version, "main": "index.js", "dependencies": p.deps,
		"dist": map[string]any{
			"tarball":   fmt.Sprintf("%s://%s/%s/-/%s-%s.tgz", scheme, req.Host, name, base, p.version),
			"shasum":    hex.EncodeToString(s1[:]),
			"integrity": "sha512-" + base64.StdEncoding.EncodeToString(s5[:]),
		}}
	return map[string]any{"name": name, "dist-tags": map[string]string{"latest": p.version},
		"versions": map[string]any{p.version: version}, "time": map[string]string{p.version: "2026-01-01T00:00:00.000Z"}}
}
