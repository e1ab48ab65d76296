// SPDX-License-Identifier: Apache-2.0

// Package doubles holds the servers that whole-product tests talk to instead
// of the world: an LLM provider that records what it received, HTTP servers
// with a CA of their own, a TCP echo, a DNS server, an npm registry and a git
// server. Each one listens where it is told, records what tests assert on, and
// leaves nothing behind after Close. They stand for other people's programs,
// never for a part of Ringfence.
package doubles
