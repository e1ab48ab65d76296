// SPDX-License-Identifier: Apache-2.0

package locks

import "slices"

// network are the ways by which bytes could leave.
func network() []Way {
	return slices.Concat(addresses(), sockets(), unixSockets(), throughTheGateway())
}

func addresses() []Way {
	return []Way{
		{Name: "tcp", Text: "TCP to an address that no rule lists", Locks: flow(),
			Attempts: []string{"tcp-public4", "tcp-literal4", "tcp-literal6", "tcp-nonblocking", "tcp-bound-source", "tcp-reconnect"},
			Tests:    []string{"pkg/kernel.TestDenied", "pkg/gateway.TestLiteralAddresses"},
			Note:     "a literal address is decided by address rules alone"},
		{Name: "tcp-fastopen", Text: "TCP fast open, `sendto(MSG_FASTOPEN)`", Locks: flow(), Attempts: []string{"tcp-fastopen-sendto", "tcp-fastopen-connect"}},
		{Name: "mptcp", Text: "multipath TCP", Locks: append(flow(), all(Socket, Seccomp)...), Attempts: []string{"tcp-mptcp"}},
		{Name: "udp", Text: "UDP, connected or not, connected and then sent elsewhere, in batches, corked, segmented", Locks: flow(),
			Attempts: []string{"udp-public4", "udp-sendto4", "udp-sendto6", "udp-connect", "udp-connected-sendto-other", "udp-sendmsg", "udp-sendmmsg", "udp-corked", "udp-segmented"}},
		{Name: "quic", Text: "QUIC, HTTP/3", Locks: flow(), Attempts: []string{"udp-quic"}, Tests: []string{"pkg/gateway.TestDNSAnswers"},
			Note: "closed unless a rule names the port with `/udp`; HTTPS and SVCB records are not answered; `alt-svc` is dropped from providers' answers"},
		{Name: "multicast", Text: "broadcast and multicast", Locks: all(Address, Egress), Attempts: []string{"udp-broadcast", "udp-multicast"},
			Note: "nobody else is in the network namespace to hear it"},
		{Name: "hidden-ipv4", Text: "IPv4 hidden in IPv6: mapped, NAT64, 6to4, Teredo", Locks: flow(),
			Attempts: []string{"tcp-mapped", "tcp-nat64", "tcp-6to4", "tcp-teredo", "tcp-virtual-mapped", "udp-mapped"},
			Tests:    []string{"pkg/gateway/upstream.TestClassify"},
			Note:     "judged as the IPv4 address, in the kernel and in the gateway; ISATAP, IPv4-compatible and -translated as well on what names resolve to"},
		{Name: "metadata", Text: "cloud metadata", Locks: flow(), Attempts: []string{"tcp-metadata4", "tcp-metadata6", "tcp-metadata-alibaba", "tcp-metadata-azure", "udp-metadata"}},
		{Name: "private", Text: "private networks, reserved addresses", Locks: flow(),
			Attempts: []string{"tcp-private10", "tcp-private172", "tcp-private192", "tcp-ula", "tcp-site-local", "tcp-class-e"}},
		{Name: "virtual", Text: "a virtual address of another sandbox, or a guessed one", Locks: flow(), Attempts: []string{"tcp-virtual-guess", "udp-virtual-guess"},
			Tests: []string{"pkg/gateway.TestSandboxesDoNotMeet", "test/escapes.TestNeighbours"}},
		{Name: "host-loopback", Text: "loopback services of the host; 0.0.0.0", Locks: all(Network, Elsewhere), Attempts: []string{"tcp-host-loopback", "tcp-host-loopback6", "tcp-unspecified"},
			Tests: []string{"pkg/kernel.TestElsewhere"}, Note: "127.0.0.1 inside is the sandbox's own, where no hook may refuse it"},
		{Name: "dns", Text: "DNS tunnelling, name servers of its own choice", Locks: append(all(Elsewhere), steered),
			Attempts: []string{"dns-own-server", "dns-own-server6", "dns-mapped-server", "dns-metadata-server", "dns-tunnel"},
			Tests:    []string{"pkg/gateway.TestDNSRefusalsNeverReachTheKeeper", "pkg/sandbox.TestWildcardBudgetBoundsWhatNamesCarry", "pkg/kernel.TestElsewhere"},
			Note:     "any server's port 53 inside is ours, where no hook may refuse it; refused names make no query; **wildcards: see residuals**"},
		{Name: "dot", Text: "DoT, DoH", Locks: flow(), Attempts: []string{"tcp-dot"}, Tests: []string{"pkg/gateway.TestDNSAnswers"},
			Note: "destinations like any other; Firefox's canary name answers NXDOMAIN"},
	}
}

func sockets() []Way {
	return []Way{
		{Name: "other-protocols", Text: "ping, UDP-Lite, SCTP, SMC, multipath TCP over IPv6", Locks: all(Socket, Seccomp),
			Attempts: []string{"socket-ping", "socket-ping6", "socket-udplite", "socket-sctp", "socket-sctp-seqpacket", "socket-smc", "socket-mptcp6"},
			Tests:    []string{"pkg/kernel.TestDenied"}},
		{Name: "raw-send", Text: "sending packets with forged headers", Locks: append(all(Socket, Egress, Seccomp, Rights), steered), Attempts: []string{"raw-send"},
			Tests: []string{"pkg/kernel.TestDenied"}, Note: "IP options and fragments too"},
		{Name: "raw", Text: "raw sockets for anything else", Locks: all(Socket, Seccomp, Rights),
			Attempts: []string{"socket-raw-icmp", "socket-raw-icmp6", "socket-raw-tcp", "socket-raw-headers", "socket-raw-cloexec-nonblock"},
			Tests:    []string{"pkg/kernel.TestDenied"}},
		{Name: "packet-send", Text: "sending by AF_PACKET", Locks: all(Seccomp, Rights, Network), Attempts: []string{"packet-send"},
			Note: "no cgroup hook sees it; there is no interface to send on but `lo`"},
		{Name: "packet", Text: "AF_PACKET, SOCK_PACKET for anything else", Locks: all(Seccomp, Rights), Attempts: []string{"socket-packet-raw", "socket-packet-dgram", "socket-inet-sock-packet"}},
		{Name: "xdp", Text: "AF_XDP", Locks: all(Seccomp, Rights), Attempts: []string{"socket-xdp"}},
		{Name: "vsock", Text: "AF_VSOCK: the hypervisor", Locks: all(Seccomp), Attempts: []string{"socket-vsock-stream", "socket-vsock-seqpacket"},
			Note: "no cgroup hook, no namespace, no right of a process says no"},
		{Name: "other-families", Text: "AF_ALG, CAN, TIPC, Bluetooth", Locks: all(Seccomp), Attempts: []string{"socket-alg", "socket-can", "socket-tipc", "socket-bluetooth"},
			Note: "AF_ALG is no way out, but kernel that nobody needs"},
		{Name: "netlink", Text: "netlink but NETLINK_ROUTE", Locks: all(Seccomp),
			Attempts: []string{"socket-netlink-netfilter", "socket-netlink-uevent", "socket-netlink-diag", "socket-netlink-generic", "socket-netlink-xfrm", "socket-netlink-audit"},
			Note:     "what they change needs capabilities, which nobody inside has"},
		{Name: "network-control", Text: "routes, interfaces, marks, transparent sockets", Locks: all(Rights),
			Attempts: []string{"net-route-add", "net-interface-flags", "net-mark", "net-transparent"},
			Note:     "they would be those of the sandbox's own network namespace, in which no route leads out"},
		{Name: "tun", Text: "a tunnel device of its own", Locks: all(View, Landlock), Attempts: []string{"net-tun"}},
		{Name: "io-uring-connect", Text: "connecting by io_uring", Locks: append(flow(), all(Seccomp)...), Attempts: []string{"tcp-io-uring"}, Tests: []string{"pkg/kernel.TestVisibility"}},
		{Name: "io-uring", Text: "io_uring for anything else", Locks: all(Seccomp), Attempts: []string{"ipc-io-uring-setup", "ipc-io-uring-enter", "ipc-io-uring-register"}},
	}
}

func unixSockets() []Way {
	paths := []string{"unix-stream", "unix-dgram", "unix-dgram-pair", "unix-docker", "unix-dotdot", "unix-symlink", "unix-proc-root"}
	abstract := []string{"unix-abstract", "unix-abstract-dgram"}
	return []Way{
		{Name: "unix-path", Text: "unix sockets of the host by path (docker, ssh-agent, D-Bus), profile with `unixSockets`", Locks: all(View, UnixPaths), Attempts: paths},
		{Name: "unix-path-closed", Text: "the same, profile without", Locks: all(View, Unix, Seccomp, UnixPaths), Attempts: paths[:2], Closed: true},
		{Name: "unix-workspace", Text: "a unix socket of the host in the workspace, profile without `unixSockets`", Locks: all(Unix, Seccomp), Attempts: []string{"unix-workspace"}, Closed: true,
			Note: "with `unixSockets`: see residuals"},
		{Name: "unix-abstract", Text: "abstract unix sockets of the host, profile with `unixSockets`", Locks: all(Network, Scopes), Attempts: abstract},
		{Name: "unix-abstract-closed", Text: "the same, profile without", Locks: all(Network, Unix, Seccomp, Scopes), Attempts: abstract, Closed: true},
	}
}

func throughTheGateway() []Way {
	return []Way{
		{Name: "rebinding", Text: "through the gateway to loopback of the host, private networks, metadata: rebinding, names that resolve there",
			Locks: append(shown(Resolver, "pkg/gateway/upstream.TestDialJudgesEveryAddress"), all(Fence)...),
			Attempts: []string{"tcp-metadata4", "tcp-metadata6", "tcp-metadata-alibaba", "tcp-metadata-azure", "tcp-private10", "tcp-private172", "tcp-private192",
				"tcp-ula", "tcp-site-local", "tcp-class-e", "tcp-mapped", "tcp-host-loopback", "tcp-host-loopback6"},
			Tests: []string{"pkg/daemon.TestWhatTheGatewayMayDial"}, Note: "one resolution, judged, and exactly that address dialled"},
		{Name: "reflected", Text: "datagrams from a source address that is no client's, so that answers come back to the relay",
			Locks: shown(Gateway, "pkg/gateway.TestStrayDatagrams"), Note: "the gateway takes datagrams of loopback and 198.18.0.1 only"},
		{Name: "spelled", Text: "spelled IPv4 (`0x7f.1`, `127.1`) in a name or an HTTP Host", Locks: shown(Gateway, "pkg/policy.TestNamesFromTheWire"),
			Note: "no valid host name"},
		{Name: "sni", Text: "SNI of another host; no SNI; split or oversized ClientHello", Locks: shown(Gateway, "pkg/gateway.TestTLSServerNames", "pkg/gateway/clienthello.TestParse"),
			Note: "compared on 443 before anything is dialled; missing: refused; reassembled with bounds, else refused"},
		{Name: "ech", Text: "ECH", Locks: shown(Gateway, "pkg/gateway.TestECHOnPort443IsTerminatedSoThatNothingHides", "pkg/gateway.TestECHOnAnotherPortIsRefused"),
			Note: "cannot be told from GREASE; on 443 the connection is terminated with the sandbox's CA, so a hidden name cannot work; refused on other ports"},
		{Name: "host-header", Text: "Host header of another site (fronting)", Locks: shown(Gateway, "pkg/gateway.TestTerminatedServerNames", "pkg/gateway.TestRawRequests"),
			Note: "checked wherever the gateway terminates (HTTP on port 80, `http:` rules, providers); **not inside passed-through TLS**"},
		{Name: "smuggling", Text: "a request hidden in another one: two framings, odd line ends, lengths, chunks, folded fields",
			Locks: shown(Gateway, "pkg/gateway.TestNothingIsSmuggled", "pkg/gateway/http1.TestOddRequestsAreLeftToOthers"),
			Note:  "where the gateway terminates: read strictly, written anew with one framing; **not inside passed-through TLS**"},
		{Name: "provider-hosts", Text: "model calls with the sandbox's own key to another provider", Locks: shown(Gateway, "pkg/gateway.TestProviderHostRefusals"),
			Note: "known hosts of providers match no egress rule; a TLS hello for a provider's name to an address is refused"},
		{Name: "provider-tools", Text: "tools on the provider's side, URLs it would fetch", Locks: shown(Gateway, "pkg/inference.TestWorkOnTheProvidersSideIsRefused"),
			Note: "parsed strictly, refused without a `server:provider` rule; unknown tool types are refused"},
		{Name: "provider-routing", Text: "routing headers and fields that make a provider send the call elsewhere", Locks: shown(Gateway, "pkg/inference.TestFieldsThatRedirectTheCallAreNeverForwarded"),
			Note: "request headers are an allow-list; such fields are refused"},
	}
}
