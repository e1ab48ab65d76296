// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/sha1" // the format's own checksum; certificates are public
	"encoding/binary"
	"encoding/pem"
	"strconv"
	"time"
	"unicode/utf16"
)

// javaCACerts is where Debian's Java keeps its trust store; other vendors'
// images link to it.
const javaCACerts = "/etc/ssl/certs/java/cacerts"

// trustStore makes trust stores that every Java reads in place of its own: the
// host's roots and one more. The format is JKS (sun.security.provider.
// JavaKeyStore): PKCS#12 without a password needs Java 18, and with one it
// costs 20 ms of key derivation per launch.
type trustStore struct {
	entries []byte // the host's roots, encoded once
	count   uint32
	made    time.Time
}

// newTrustStore returns nil when the host has no Java.
func newTrustStore(bundle []byte, now time.Time) *trustStore {
	if !exists(javaCACerts) {
		return nil
	}
	s := &trustStore{made: now}
	for rest := bundle; ; {
		var p *pem.Block
		if p, rest = pem.Decode(rest); p == nil {
			return s
		}
		s.entries = appendEntry(s.entries, "ca-"+strconv.Itoa(int(s.count)), p.Bytes, now)
		s.count++
	}
}

// with returns the store with one more root, nil for a nil store.
func (s *trustStore) with(der []byte) []byte {
	if s == nil {
		return nil
	}
	const magic, version = 0xFEEDFEED, 2
	b := make([]byte, 0, len(s.entries)+len(der)+128)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, version)
	b = binary.BigEndian.AppendUint32(b, s.count+1)
	b = append(b, s.entries...)
	b = appendEntry(b, "ringfence", der, s.made)
	h := sha1.New()
	for _, u := range utf16.Encode([]rune("changeit")) { // Java's default password
		h.Write([]byte{byte(u >> 8), byte(u)})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(b)
	return h.Sum(b)
}

func appendEntry(b []byte, alias string, der []byte, now time.Time) []byte {
	const trusted = 2
	b = binary.BigEndian.AppendUint32(b, trusted)
	b = appendUTF(b, alias)
	b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMilli()))
	b = appendUTF(b, "X.509")
	b = binary.BigEndian.AppendUint32(b, uint32(len(der)))
	return append(b, der...)
}

func appendUTF(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}
