// SPDX-License-Identifier: Apache-2.0

package gateway

// Reason codes of the gateway itself: stable, for events and metrics. Codes of
// policy decisions are policy.Code*, those of address classes come from
// upstream.RefusedError.Code, those of model calls from pkg/inference.
const (
	codeConnections    = "too-many-connections" // the sandbox's or the node's bound is reached
	codeDescriptors    = "out-of-descriptors"   // accept failed for want of descriptors; it goes on
	codeEventBuffer    = "event-buffer-full"    // see recorder
	codeUnknownAddr    = "unknown-address"      // a virtual address that stands for no name
	codeRefusalPort    = "refusal-port"         // the refusal address on another port than 80 and 443
	codeNoSnapshot     = "no-policy"            // no policy was received yet
	codeNotTLS         = "not-tls"              // port 443 without a TLS handshake
	codeMalformedTLS   = "malformed-hello"      // no well-formed ClientHello within bounds and time
	codeNoSNI          = "no-sni"               // pass-through needs a server name
	codeSNIMismatch    = "sni-mismatch"         // the server name is not the name that was resolved
	codeECH            = "ech"                  // a hello that hides its name
	codeHandshake      = "tls-handshake"        // the client did not complete the handshake with us
	codeLeaf           = "no-certificate"       // the keeper signed no certificate
	codeProviderPlain  = "provider-needs-tls"   // a provider host on another port than 443
	codeNoHost         = "no-host"              // a request without a Host
	codeHostMismatch   = "host-mismatch"        // Host or :authority is not the name
	codeBadRequest     = "bad-request"          // an ambiguous request
	codeMethodOverride = "method-override"      // a header that would change the judged method
	codeConnect        = "connect-method"       // CONNECT makes a tunnel
	codeUpgrade        = "upgrade"              // an Upgrade that is not a WebSocket, or one policy does not allow
	codeNoRequest      = "no-request"           // the connection ended before a request was complete
	codeResolve        = "resolve-failed"       // the host's resolver has no answer
	codeUpstream       = "upstream-failed"      // the upstream did not answer
	codeUpstreamTLS    = "upstream-certificate" // the upstream's certificate did not verify
	codeUpstreamHello  = "upstream-tls"         // the TLS handshake with the upstream failed
	codeGrantUsed      = "grant-used"           // allowed for one connection, and another had it
	codeRevoked        = "revoked"              // a running connection that policy no longer allows
	codeStopped        = "sandbox-stopped"
	codeShutdown       = "shutdown"
	codeIdle           = "idle"
	codeKeeper         = "keeper-unavailable"
	codeNames          = "too-many-names"
	codeQueryType      = "query-type"    // a DNS type that is not answered
	codeBadQuery       = "bad-query"     // a DNS message that is not one plain question
	codeCanary         = "canary-domain" // use-application-dns.net
	codeBusy           = "too-many-questions"
	codeNotRedirected  = "not-redirected"  // a connection to a listener that no hook of the sandbox sent there
	codeReplaced       = "socket-replaced" // another socket sends from the port now, or the same one elsewhere
	codeLocalPort      = "own-address"     // the sandbox's own address, which is not steered
)
