// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"software.sslmate.com/src/go-pkcs12"
)

// javaCACerts is where Debian's Java keeps its trust store; other vendors'
// images link to it.
const javaCACerts = "/etc/ssl/certs/java/cacerts"

// javaStore turns a PEM bundle into a PKCS#12 trust store that Java reads in
// place of its own (RFC 7292; Java accepts one without password since 18 and
// with "changeit" always). It returns nil when the host has no Java.
func javaStore(bundle []byte) ([]byte, error) {
	if !exists(javaCACerts) {
		return nil, nil
	}
	var entries []pkcs12.TrustStoreEntry
	for rest := bundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			continue // a root that Go does not understand (negative serial): Java does without it
		}
		entries = append(entries, pkcs12.TrustStoreEntry{Cert: c, FriendlyName: fmt.Sprintf("ca-%d", len(entries))})
	}
	out, err := pkcs12.LegacyDES.EncodeTrustStoreEntries(entries, "changeit")
	if err != nil {
		return nil, fmt.Errorf("java trust store: %w", err)
	}
	return out, nil
}
