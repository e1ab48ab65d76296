// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"
)

const chunk = 32 << 10

// bufPool holds copy buffers; eventPool smaller ones for event streams, of which
// thousands may be open and say little.
var (
	bufPool   = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}
	eventPool = sync.Pool{New: func() any { b := make([]byte, chunk/8); return &b }}
)

// scrubber blanks secrets in a byte stream without changing its length. It
// holds back only the end of a chunk that could be the start of a secret, so
// a complete event is never delayed.
type scrubber struct {
	secrets []string
	held    []byte
}

// next takes a chunk and returns what may be passed on; last ends the stream.
// The result is valid until the next call and may alias b.
func (s *scrubber) next(b []byte, last bool) []byte {
	if len(s.secrets) == 0 {
		return b
	}
	if len(s.held) > 0 {
		b = append(s.held, b...)
		s.held = nil
	}
	keep := 0
	for _, secret := range s.secrets {
		blank(b, secret)
		if !last {
			keep = max(keep, overlap(b, secret))
		}
	}
	if keep > 0 {
		s.held = append(make([]byte, 0, keep+chunk), b[len(b)-keep:]...)
	}
	return b[:len(b)-keep]
}

// blank overwrites each occurrence of secret in b with stars.
func blank(b []byte, secret string) {
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(secret))
		if i < 0 {
			return
		}
		for j := range secret {
			b[from+i+j] = '*'
		}
		from += i + len(secret)
	}
}

// overlap is the length of the longest end of b that starts secret.
func overlap(b []byte, secret string) int {
	for n := min(len(b), len(secret)-1); n > 0; n-- {
		if string(b[len(b)-n:]) == secret[:n] {
			return n
		}
	}
	return 0
}

// maskedKey finds keys as providers quote them in errors: whole or with the
// middle starred out ("sk-proj-ab****wxyz").
var maskedKey = regexp.MustCompile(`\b(?:sk|rk|pk|sess|xai)-[-_*A-Za-z0-9]{6,}|\bgsk_[-_*A-Za-z0-9]{6,}|\bAIza[-_*A-Za-z0-9]{10,}|[-_A-Za-z0-9]{2,}\*{3,}[-_*A-Za-z0-9]*`)

const maxError = 256 << 10

// errorScrubber returns the body of a provider's error with everything that
// looks like a key blanked, length unchanged. Beyond maxError bytes only the
// exact secret is looked for (by scrubber).
func errorScrubber(body io.Reader) io.Reader {
	head, err := io.ReadAll(io.LimitReader(body, maxError))
	for _, at := range maskedKey.FindAllIndex(head, -1) {
		for i := at[0]; i < at[1]; i++ {
			head[i] = '*'
		}
	}
	if err != nil {
		return io.MultiReader(bytes.NewReader(head), failing{err})
	}
	return io.MultiReader(bytes.NewReader(head), body)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// scrubText blanks secrets in a text for the record.
func scrubText(s string, secrets []string) string {
	for _, secret := range secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return maskedKey.ReplaceAllString(s, "***")
}
