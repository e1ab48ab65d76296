// SPDX-License-Identifier: Apache-2.0

// Package api is the operator API of one node: HTTP and JSON over the keeper's
// unix socket, its server and its client.
//
// The caller of a request is known by the kernel's word alone (SO_PEERCRED,
// SO_PEERGROUPS, SO_PEERPIDFD), read once when its connection is accepted.
// Every route states who may use it in one table ([routes]); a route without a
// requirement is refused to everyone. The package decides who may ask; a
// [Backend] does what is asked.
//
// Launching is an HTTP upgrade: the request carries what to run, then the
// connection carries one message with descriptors (see [Files]) and, back,
// length-prefixed frames (see [Frame]).
package api

import "time"

// Version is the version of the API, the first segment of every path.
const Version = "v1"

// DefaultSocket is where a keeper listens unless told otherwise.
const DefaultSocket = "/run/ringfence/ringfence.sock"

// SocketEnv is the environment variable that names the socket for the client.
const SocketEnv = "RINGFENCE_SOCKET"

// DefaultScope is the scope in which members of the operator group may work.
const DefaultScope = "org:local/team:default"

// Bounds on what a client may send. They are part of the contract: above them
// the answer is 413 or 431 and the request has no effect.
const (
	MaxLaunchBody = 2 << 20   // launch and exec: environment, documents
	MaxBody       = 256 << 10 // every other request
	MaxHeader     = 16 << 10
	MaxFrame      = 64 << 10 // one frame on an upgraded connection
)

// Time limits of the server.
const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	fdsTimeout    = 10 * time.Second // from the 101 answer to the descriptors
	writeTimeout  = 30 * time.Second // one write of a stream to a reader that does not read
)
