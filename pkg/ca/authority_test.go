// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func point(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLeafVerifiesOnlyForItsNameAndAuthority(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a, err := New(dir, "sb-1", now)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := New(t.TempDir(), "sb-2", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api.openai.com", "192.0.2.7", strings.Repeat("a", 63) + ".example.com"} {
		der, err := loaded.Leaf(name, point(t), now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AddCert(a.Certificate())
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: pool}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: pool}); err == nil {
			t.Errorf("%s: also valid for another name", name)
		}
		wrong := x509.NewCertPool()
		wrong.AddCert(other.Certificate())
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: wrong}); err == nil {
			t.Errorf("%s: valid under another sandbox's authority", name)
		}
	}
}

func TestKeyFilesAreRootOnly(t *testing.T) {
	dir := t.TempDir()
	if _, err := New(dir, "sb", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{keyFile, certFile} {
		st, err := os.Stat(filepath.Join(dir, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", f, st.Mode(), err)
		}
	}
}

func TestLeafRefusesBadPoint(t *testing.T) {
	a, err := New(t.TempDir(), "sb", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{nil, make([]byte, 65), []byte("short"), append([]byte{4}, make([]byte, 64)...)} {
		if _, err := a.Leaf("x", p, time.Now()); err == nil {
			t.Errorf("point %x accepted", p)
		}
	}
}
