// SPDX-License-Identifier: Apache-2.0

package api

import "log/slog"

// Secret is a value that prints as "[redacted]" wherever fmt or slog meets
// it. It is encoded in JSON as it is, because a client has to send it: no
// response type of this package contains one.
type Secret string

// Reveal returns the value.
func (s Secret) Reveal() string { return string(s) }

// String keeps the value out of messages.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString keeps the value out of %#v.
func (s Secret) GoString() string { return "api.Secret(" + s.String() + ")" }

// LogValue keeps the value out of logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
