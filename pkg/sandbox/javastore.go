// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"crypto/sha1" // the format's own checksum; certificates are public
	"encoding"
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
	head []byte // of every store: up to and with the host's roots, encoded once
	sum  []byte // the state of the checksum after head
	made time.Time
}

// newTrustStore returns nil when the host has no Java.
func newTrustStore(bundle []byte, now time.Time) *trustStore {
	if !exists(javaCACerts) {
		return nil
	}
	var entries []byte
	count := uint32(0)
	for rest := bundle; ; count++ {
		var p *pem.Block
		if p, rest = pem.Decode(rest); p == nil {
			break
		}
		entries = appendEntry(entries, "ca-"+strconv.Itoa(int(count)), p.Bytes, now)
	}
	const magic, version = 0xFEEDFEED, 2
	s := &trustStore{made: now}
	s.head = binary.BigEndian.AppendUint32(s.head, magic)
	s.head = binary.BigEndian.AppendUint32(s.head, version)
	s.head = binary.BigEndian.AppendUint32(s.head, count+1)
	s.head = append(s.head, entries...)
	h := sha1.New()
	for _, u := range utf16.Encode([]rune("changeit")) { // Java's default password
		h.Write([]byte{byte(u >> 8), byte(u)})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(s.head)
	var err error
	if s.sum, err = h.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		panic(err) // the standard library's hashes give their state
	}
	return s
}

// with returns the parts of the store with one more root, nil for a nil store.
func (s *trustStore) with(der []byte) [][]byte {
	if s == nil {
		return nil
	}
	h := sha1.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.sum); err != nil {
		panic(err) // it is the state that this type gave
	}
	tail := appendEntry(nil, "ringfence", der, s.made)
	h.Write(tail)
	return [][]byte{s.head, h.Sum(tail)}
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
