// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/event"
)

// Hash is the SHA-256 that links records.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Head names one record of a log: kept off the host it is the anchor against
// which the log can be verified later.
type Head struct {
	Chain    string // name of the log
	Sequence uint64 // last record, 0 for an empty log
	Hash     Hash   // its hash, for an empty log the genesis value
}

// String is "<chain>:<sequence>:<hash>".
func (h Head) String() string {
	return h.Chain + ":" + strconv.FormatUint(h.Sequence, 10) + ":" + h.Hash.String()
}

// ParseHead is the inverse of [Head.String].
func ParseHead(s string) (Head, error) {
	chain, rest, ok := strings.Cut(s, ":")
	seq, sum, ok2 := strings.Cut(rest, ":")
	n, err := strconv.ParseUint(seq, 10, 64)
	var h Hash
	if !ok || !ok2 || err != nil || !isChain(chain) || !parseHash(&h, []byte(sum)) {
		return Head{}, fmt.Errorf("audit: %q is not CHAIN:SEQUENCE:HASH", s)
	}
	return Head{Chain: chain, Sequence: n, Hash: h}, nil
}

const chainLen = 16 // hex digits

func isChain(s string) bool {
	if len(s) != chainLen {
		return false
	}
	for _, c := range []byte(s) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

func genesis(chain string) Hash { return sha256.Sum256([]byte("ringfence audit log 1\n" + chain)) }

func recordID(chain string, seq uint64) string { return chain + "-" + strconv.FormatUint(seq, 10) }

// splitID is the inverse of recordID.
func splitID(id string) (chain string, seq uint64, ok bool) {
	chain, n, found := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(n, 10, 64)
	return chain, seq, found && err == nil && isChain(chain)
}

const (
	openChain = `,"chain":"`
	openPrev  = `","prev":"`
	openHash  = `","hash":"`
	closeAll  = `"` + event.Tail
	hashHex   = 2 * sha256.Size
	// sealLen is what appendSealed puts behind the body of a record.
	sealLen = len(openChain) + chainLen + len(openPrev) + hashHex + len(openHash) + hashHex + len(closeAll)
)

// appendSealed encodes the event, whose ID and Sequence are set, as one line
// with newline and links it to prev.
func appendSealed(dst []byte, e *event.Event, n event.Node, chain string, prev Hash) ([]byte, Hash, error) {
	start := len(dst)
	out, err := e.AppendOCSF(dst, n)
	if err != nil {
		return dst, Hash{}, err
	}
	out = out[:len(out)-len(event.Tail)]
	out = append(out, openChain...)
	out = append(out, chain...)
	out = append(out, openPrev...)
	out = hex.AppendEncode(out, prev[:])
	out = append(out, '"')
	sum := Hash(sha256.Sum256(out[start:]))
	out = append(out, openHash[1:]...)
	out = hex.AppendEncode(out, sum[:])
	out = append(out, closeAll...)
	return append(out, '\n'), sum, nil
}

// link is what a record says about its place in the chain.
type link struct {
	seq        uint64
	chain      string
	prev, hash Hash
}

var (
	errShape = errors.New("it is not a record of this log")
	errSum   = errors.New("its content does not match its own hash: it was changed")
)

// readLink checks one line (without newline) against its own hash and returns
// its links.
func readLink(line []byte) (link, error) {
	var l link
	if len(line) < sealLen {
		return l, errShape
	}
	body, seal := line[:len(line)-sealLen], line[len(line)-sealLen:]
	take := func(n int) []byte {
		out := seal[:n]
		seal = seal[n:]
		return out
	}
	ok := string(take(len(openChain))) == openChain
	l.chain = string(take(chainLen))
	ok = ok && isChain(l.chain)
	ok = ok && string(take(len(openPrev))) == openPrev
	ok = ok && parseHash(&l.prev, take(hashHex))
	ok = ok && string(take(len(openHash))) == openHash
	ok = ok && parseHash(&l.hash, take(hashHex))
	if !ok || string(seal) != closeAll {
		return l, errShape
	}
	hashed := line[:len(body)+len(openChain)+chainLen+len(openPrev)+hashHex+1]
	if sha256.Sum256(hashed) != l.hash {
		return l, errSum
	}
	h, err := event.PeekOCSF(line)
	if err != nil || h.ID != recordID(l.chain, h.Sequence) {
		return l, errShape
	}
	l.seq = h.Sequence
	return l, nil
}

func parseHash(h *Hash, s []byte) bool {
	if len(s) != hashHex || !bytes.Equal(s, bytes.ToLower(s)) {
		return false
	}
	_, err := hex.Decode(h[:], s)
	return err == nil
}
