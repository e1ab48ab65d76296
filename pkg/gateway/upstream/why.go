// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Why says in a few words what kept who, the destination, from answering. It
// names no address, so that it can be told inside a sandbox too; "did not
// answer" is what is left when nothing better is known.
func Why(err error, who string) string {
	var resolve *ResolveError
	var name *net.DNSError
	switch {
	case errors.As(err, &resolve):
		if errors.As(err, &name) && name.IsNotFound {
			return "the host's name servers do not know " + who + " (/etc/hosts is not asked)"
		}
		if timedOut(err) {
			return "the host's resolver did not answer in time for " + who
		}
		return "the host's resolver has no address for " + who
	case FailedTLS(err):
		return "the TLS handshake with " + who + " failed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return who + " refused the connection"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this host has no route to " + who
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "this host does not let the gateway connect to " + who
	case timedOut(err):
		return who + " did not answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return who + " closed the connection without an answer"
	}
	return who + " did not answer"
}

func timedOut(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// FailedTLS says whether err is a handshake that did not come about: the two
// sides have nothing in common, or what answered does not speak TLS. A
// certificate that does not verify is a *tls.CertificateVerificationError.
func FailedTLS(err error) bool {
	var record tls.RecordHeaderError
	var op *net.OpError // both alerts: ours and theirs
	switch {
	case err == nil:
		return false
	case errors.As(err, &record):
		return true
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		return true
	}
	// crypto/tls and net/http have no types for the rest.
	text := err.Error()
	return strings.HasPrefix(text, "tls: ") || strings.Contains(text, "TLS handshake timeout") || strings.Contains(text, "HTTP response to HTTPS client")
}
