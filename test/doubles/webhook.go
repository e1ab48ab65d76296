// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Receiver takes webhooks as docs/APPROVALS.md tells receivers to: it checks the
// signature and the time by itself. It is an http.Handler.
type Receiver struct {
	secret []byte

	mu     sync.Mutex
	got    []Told
	faults []int // answers to come
	hold   chan struct{}
}

// Told is one attempt.
type Told struct {
	ID     string
	Header http.Header
	Body   []byte
	Status int   // that it was answered with
	Err    error // what is wrong with it
}

// NewReceiver makes one that knows the secret.
func NewReceiver(secret []byte) *Receiver { return &Receiver{secret: secret} }

// Fail scripts the next answers.
func (r *Receiver) Fail(status ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, status...)
}

// Hang keeps every attempt without an answer until the returned function is
// called.
func (r *Receiver) Hang() (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan struct{})
	r.hold = c
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hold = nil
		close(c)
	}
}

// Got lists the attempts so far.
func (r *Receiver) Got() []Told {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Told(nil), r.got...)
}

// Last is the newest attempt.
func (r *Receiver) Last() Told {
	all := r.Got()
	if len(all) == 0 {
		return Told{Err: errors.New("nothing came")}
	}
	return all[len(all)-1]
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // whoever sent it was ended in the middle
	}
	err = r.Check(req.Header, body, time.Now())
	if req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" {
		err = errors.Join(err, fmt.Errorf("%s of %s", req.Method, req.Header.Get("Content-Type")))
	}
	r.mu.Lock()
	status, hold := http.StatusNoContent, r.hold
	if len(r.faults) > 0 {
		status, r.faults = r.faults[0], r.faults[1:]
	}
	if err != nil {
		status = http.StatusForbidden
	}
	r.got = append(r.got, Told{ID: req.Header.Get("Ringfence-Delivery"), Header: req.Header.Clone(), Body: body, Status: status, Err: err})
	r.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-req.Context().Done():
		}
	}
	w.WriteHeader(status)
}

// tolerance is how old an attempt may be: one that was recorded is not taken
// later.
const tolerance = 5 * time.Minute

// Check says what is wrong with a delivery at a time.
func (r *Receiver) Check(h http.Header, body []byte, now time.Time) error {
	at, id := h.Get("Ringfence-Timestamp"), h.Get("Ringfence-Delivery")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return fmt.Errorf("no time: %w", err)
	}
	if age := now.Sub(time.Unix(seconds, 0)); age > tolerance || age < -tolerance {
		return fmt.Errorf("it is %s old", age)
	}
	m := hmac.New(sha256.New, r.secret)
	fmt.Fprintf(m, "%s.%s.%s", at, id, body)
	if want := "sha256=" + hex.EncodeToString(m.Sum(nil)); !hmac.Equal([]byte(want), []byte(h.Get("Ringfence-Signature"))) {
		return errors.New("the signature is of something else")
	}
	return nil
}
