// SPDX-License-Identifier: Apache-2.0

// Package webhook tells one receiver what happens, signed, at least once. It has
// two sides: a [Queue] in the keeper, which touches no network, and a [Main] that
// the keeper starts as another process: unprivileged, confined, with nothing but
// the address of the receiver, the secret and what it is to send.
//
// A delivery is one POST of a JSON body with these headers:
//
//	Ringfence-Delivery: ID            the same each time that it is sent
//	Ringfence-Timestamp: SECONDS      of this attempt, since 1970
//	Ringfence-Signature: sha256=HEX   HMAC-SHA256 with the secret over
//	                                  SECONDS "." ID "." BODY
//
// 2xx takes it. 408, 425, 429 and 5xx, and whatever keeps it from being answered
// at all, is tried again; any other answer, redirects too, is final.
package webhook

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/ringfence/ringfence/pkg/wire"
)

// Target is the receiver.
type Target struct {
	URL     string        `json:"url"`
	Secret  []byte        `json:"secret"`
	Timeout time.Duration `json:"timeout"` // of one attempt
	RootCAs []byte        `json:"rootCAs"` // PEM, added to the system's
}

// Bounds of a target, and of a delivery.
const (
	MinSecret  = 16
	MaxSecret  = 4 << 10
	MaxTimeout = time.Minute
	MaxBody    = wire.MaxPayload - 1<<10
)

// Valid says why a target cannot be used. What is said about approvals is not
// for others on the network: http is for this machine alone.
func (t *Target) Valid() error {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return errors.New("the url cannot be read") // its text may hold a secret
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("the url is not https://HOST/PATH")
	case u.User != nil || u.Fragment != "":
		return errors.New("the url has a user or a fragment: the signature is what proves who sends")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return errors.New("a url with http names a loopback address: use https for every other")
	case len(t.Secret) < MinSecret || len(t.Secret) > MaxSecret:
		return fmt.Errorf("the secret has %d bytes, and needs %d to %d", len(t.Secret), MinSecret, MaxSecret)
	case t.Timeout <= 0 || t.Timeout > MaxTimeout:
		return fmt.Errorf("the timeout is not above 0 and at most %s", MaxTimeout)
	}
	return nil
}

// loopback says whether a host is a loopback address. A name is not: whoever
// answers for it decides where that is.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// Outcome is what became of one attempt. The zero value is a failure that is
// tried again.
type Outcome uint8

// The outcomes.
const (
	Failed      Outcome = iota // the sender could not
	Delivered                  // 2xx
	Busy                       // an answer that asks to try again
	Rejected                   // any other answer
	Unreachable                // no connection, or it broke
	Untrusted                  // the receiver's certificate is not valid for it
	Late                       // no answer in time
)

var outcomeWords = [...]string{"the sender failed", "it was taken", "the receiver answered that it should be tried again", "the receiver refused it", "the receiver could not be reached", "the receiver's certificate was not accepted", "the receiver did not answer in time"}

// String is the outcome in words.
func (o Outcome) String() string {
	if int(o) < len(outcomeWords) {
		return outcomeWords[o]
	}
	return outcomeWords[Failed]
}

// final says whether trying again is of no use.
func (o Outcome) final() bool { return o == Delivered || o == Rejected }

// Result is the outcome and the status of an answer, 0 without one.
type Result struct {
	Outcome Outcome
	Status  uint16
}

// String is the result in words.
func (r Result) String() string {
	if r.Status != 0 {
		return fmt.Sprintf("%s (%d)", r.Outcome, r.Status)
	}
	return r.Outcome.String()
}
