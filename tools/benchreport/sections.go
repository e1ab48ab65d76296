// SPDX-License-Identifier: Apache-2.0

package main

// section is a part of the report and the benchmarks behind it.
type section struct {
	title string
	text  string
	dir   string // of another module, below the root; "" for this one
	pkg   string
	bench string
	flags []string
	// tables are columns in their order; figures in none of them are left
	// out. Without any, one table has all.
	tables [][]column
}

// column is one figure of each benchmark.
type column struct {
	head, unit string
}

// sections are the report. All of them together take a few minutes.
var sections = []section{
	{
		title: "Kernel: one lookup",
		text: "A lookup in the real tables without the hook around it: the kernel repeats a program that makes a key and looks it up,\n" +
			"less the same program without the lookup. \"hot\" asks for one entry again and again; \"random\" for any of them, which with\n" +
			"100,000 rules is the time of missing the processor's caches. Names are a hash table, cidr is a longest-prefix trie.",
		pkg: "./pkg/kernel", bench: "^BenchmarkLookup$", flags: []string{"-benchtime", "20x"},
		tables: [][]column{{{"ns", "ns/lookup"}}},
	},
	{
		title: "Kernel: the whole connect hook",
		text: "The connect4 program by the kernel's own clock (`kernel.bpf_stats_enabled`, which itself adds about 50 ns to each run): allowed\n" +
			"by name, allowed by an address rule, or denied; with the record of it sent to user space, and with the record throttled away.",
		pkg: "./pkg/kernel", bench: "^BenchmarkConnect$", flags: []string{"-benchtime", "5x", "-count", "3"},
		tables: [][]column{{{"ns", "ns/hook"}}},
	},
	{
		title: "Kernel: many sandboxes",
		text: "The connect4 program and the packet program of one sandbox by the number of attached ones, each with 100 names in its table, by the\n" +
			"kernel's own clock (about 50 ns of each figure are the clock's).",
		pkg: "./pkg/kernel", bench: "^BenchmarkSandboxes$", flags: []string{"-benchtime", "10x", "-count", "3"},
		tables: [][]column{{{"connect ns", "ns/connect"}, {"packet ns", "ns/packet"}}},
	},
	{
		title: "Every system call of the machine",
		text: "What a process outside every sandbox pays for `audit.syscalls` while a sandbox lives: rounds of the same call without and with the\n" +
			"tracepoint, in turns.",
		pkg: "./pkg/kernel", bench: "^BenchmarkSystemCall$", flags: []string{"-benchtime", "15x"},
		tables: [][]column{{{"without ns", "off-ns"}, {"with ns", "on-ns"}, {"added ns", "added-ns"}}},
	},
	{
		title: "Attestation",
		text: "One comparison of a sandbox's walls with what was intended, by the processes in it, and one look through all processes of the machine,\n" +
			"which serves every sandbox. CPU time of the keeper; a thousand sandboxes with one process each cost a thousand of the first row in\n" +
			"every `attest.interval`. A launch has one such look.",
		pkg: "./pkg/sandbox", bench: "^BenchmarkAttest$", flags: []string{"-benchtime", "300x", "-count", "3"},
		tables: [][]column{{{"threads", "threads"}, {"CPU µs", "cpu-µs"}}},
	},
	{
		title: "Policy change",
		text: "From a compiled policy to the kernel, with a thousand sandboxes and ten thousand rules that change: for names, of which each sandbox has\n" +
			"ten in use, or for addresses, ten for each sandbox. After `effect` the kernel judges all of them on the new policy; after `whole` the former\n" +
			"tables are dropped. CPU is that of both. Kernel memory of the maps for each entry and, without entries, for each sandbox.",
		pkg: "./pkg/sandbox", bench: "^BenchmarkPolicyChange$", flags: []string{"-benchtime", "20x"},
		tables: [][]column{{{"effect ms", "effect-ms"}, {"whole ms", "whole-ms"}, {"CPU ms", "cpu-ms"}, {"entries", "entries"}, {"bytes each", "entry-bytes"}, {"bytes for a sandbox", "sandbox-bytes"}}},
	},
	{
		title: "Policy: one decision",
		text: "One decision of the compiled policy in the gateway, on one CPU, by the number of rules in all documents. HTTP matches method\n" +
			"and path too; Addr and Inference have 10,000 rules. Tool decides calls of tools, the second time with an expression in every allow.",
		pkg: "./pkg/policy", bench: "^Benchmark(Egress|Addr|HTTP|Inference|Tool)$", flags: []string{"-benchtime", "100ms", "-count", "5"},
		tables: [][]column{{{"ns", "ns/op"}, {"CPU ns", "cpu-ns/op"}, {"allocations", "allocs/op"}}},
	},
	{
		title: "Policy: beside other engines",
		text: "One decision about a call of a tool by cedar-go, Open Policy Agent (rules with its rule index) and cel-go (a program for each rule, all asked), of the same\n" +
			"requests on the same rules, by what all of them can express: allow, block and approval, the strictest counts, on exact servers and tools, some for one\n" +
			"team; `conditions` has a comparison of an argument in every allow. Not compared, for one or all of the others have no such thing: layers and delegation, narrower rules that\n" +
			"displace wider ones, prefixes, obligations, risk classes, windows, shadow rules, errors of conditions that count against the agent. Each effect has a tenth of the 256 requests\n" +
			"at least, and every engine has decided each of them rightly before it is measured. Bringing a request into an engine's own form is not counted. OPA and cel-go have\n" +
			"10,000 rules at most: beyond that building the first and asking the second takes too long.",
		dir: "test/peers", pkg: ".", bench: "^BenchmarkPeers$", flags: []string{"-benchtime", "100ms"},
		tables: [][]column{{{"ns", "ns/op"}, {"CPU ns", "cpu-ns/op"}, {"allocations", "allocs/op"}}},
	},
	{
		title: "Connection and request",
		text: "A new TCP connection, one HTTP request and its answer, close: from inside a sandbox through hook, steering and gateway to a server\n" +
			"on loopback, against the same program outside straight to that server. One at a time; TLS without resumption. `passed-through` is\n" +
			"relayed by name, and with TLS the server name is checked; `inspected` and `tls-terminated` judge method and path, and the gateway keeps\n" +
			"its own connection to the server. CPU is that of the gateway and of the keeper for each request; the keeper writes and syncs the events.\n" +
			"`name-lookup` is one DNS question for an allowed name.",
		pkg: "./test/bench", bench: "^BenchmarkConnectRequest$", flags: []string{"-benchtime", "10x"},
		tables: [][]column{{{"direct µs", "direct-µs"}, {"fenced µs", "fenced-µs"}, {"ratio", "ratio"}, {"gateway CPU µs", "gateway-cpu-µs"}, {"keeper CPU µs", "keeper-cpu-µs"}}},
	},
	{
		title: "Datagrams",
		text: "A datagram and its answer of the same size, from inside a sandbox through the relay to a server on loopback, against the same program\n" +
			"outside straight to that server: p50 of one at a time, and how many of them pass in a second with eight sockets. CPU is that of the\n" +
			"gateway for both directions; a flow has one record, so the keeper has no part in it.",
		pkg: "./test/bench", bench: "^BenchmarkDatagrams$", flags: []string{"-benchtime", "10x"},
		tables: [][]column{
			{{"direct µs", "direct-µs"}, {"fenced µs", "fenced-µs"}, {"ratio", "ratio"}, {"gateway CPU µs", "gateway-cpu-µs"}},
			{{"direct /s", "direct-per-s"}, {"fenced /s", "fenced-per-s"}, {"fenced / direct", "share"}},
		},
	},
	{
		title: "Streams",
		text: "Opaque streams of 256 MiB in all on 1, 4 or 64 new connections from (down) or to (up) a server on loopback: straight; through `relay`,\n" +
			"the floor: accept, dial and `io.Copy` both ways in Go, as root; through `sockmap`, an sk_skb program that redirects between sockets (an\n" +
			"experiment, its kernel workers' CPU is not counted); and from a sandbox through the gateway. CPU is that of the relaying process for each MiB.\n" +
			"Each program has a session of its own, as sandboxes have, for the scheduler shares CPUs out by session.",
		pkg: "./test/bench", bench: "^BenchmarkStream$", flags: []string{"-benchtime", "8x"},
		tables: [][]column{
			{{"direct Gbit/s", "direct-Gbit"}, {"relay Gbit/s", "relay-Gbit"}, {"sockmap Gbit/s", "sockmap-Gbit"}, {"gateway Gbit/s", "gateway-Gbit"}},
			{{"relay / direct", "relay-share"}, {"sockmap / direct", "sockmap-share"}, {"gateway / direct", "gateway-share"}, {"relay CPU µs", "relay-cpu-µs"}, {"gateway CPU µs", "gateway-cpu-µs"}},
		},
	},
	{
		title: "New connections",
		text: "How many connections in a second open, carry one byte each way (`inspected`: a small HTTP request and its answer) and close, eight at a\n" +
			"time: straight, through `relay` as above, and from a sandbox through the gateway. CPU of the processes for each connection.",
		pkg: "./test/bench", bench: "^BenchmarkKnock$", flags: []string{"-benchtime", "8x"},
		tables: [][]column{
			{{"direct /s", "direct-per-s"}, {"relay /s", "relay-per-s"}, {"gateway /s", "gateway-per-s"}, {"relay / direct", "relay-share"}, {"gateway / direct", "gateway-share"}},
			{{"relay CPU µs", "relay-cpu-µs"}, {"gateway CPU µs", "gateway-cpu-µs"}, {"keeper CPU µs", "keeper-cpu-µs"}},
		},
	},
	{
		title: "Beside nginx",
		text: "The same as a reverse proxy does it: nginx with a worker for each CPU judges method and path, keeps connections to the server, verifies its\n" +
			"certificate, buffers nothing on disk and writes a log line for each request. Both ends speak TLS 1.3 with the same cipher where TLS is\n" +
			"terminated. Downloads of 128 MiB on two connections, CPU for each MiB; small requests on 16 connections, CPU for each. nginx's client is a\n" +
			"process outside; the gateway's runs in a sandbox, whose packets and system calls the kernel's hooks judge.",
		pkg: "./test/bench", bench: "^Benchmark(Download|Requests)$", flags: []string{"-benchtime", "8x"},
		tables: [][]column{
			{{"direct Gbit/s", "direct-Gbit"}, {"nginx Gbit/s", "nginx-Gbit"}, {"gateway Gbit/s", "gateway-Gbit"}},
			{{"direct /s", "direct-per-s"}, {"nginx /s", "nginx-per-s"}, {"gateway /s", "gateway-per-s"}},
			{{"gateway / nginx", "gateway-to-nginx"}, {"nginx CPU µs", "nginx-cpu-µs"}, {"gateway CPU µs", "gateway-cpu-µs"}, {"CPU, gateway / nginx", "cpu-to-nginx"}, {"keeper CPU µs", "keeper-cpu-µs"}},
		},
	},
	{
		title: "Model call",
		text: "A model call of about 600 bytes to a provider double that answers at once, a document or a stream of 20 events: from a sandbox through\n" +
			"the gateway; from outside through `proxy`, the floor: Go's `httputil.ReverseProxy`, parsing the body and swapping the key, nothing recorded;\n" +
			"and straight to the double. Connections are kept on either side, TLS in front and none behind. The gateway reads strict JSON, asks policy,\n" +
			"reads usage from the answer and writes an event; the keeper chains and syncs it. CPU of the process for each call, and calls per second,\n" +
			"with 16 connections; p50 with one; resident memory after all of it.",
		pkg: "./test/bench", bench: "^BenchmarkModelCall$", flags: []string{"-benchtime", "10x"},
		tables: [][]column{
			{{"proxy CPU µs", "proxy-cpu-µs"}, {"gateway CPU µs", "gateway-cpu-µs"}, {"gateway / proxy", "cpu-ratio"}, {"keeper CPU µs", "keeper-cpu-µs"}},
			{{"direct p50 µs", "direct-p50-µs"}, {"proxy p50 µs", "proxy-p50-µs"}, {"gateway p50 µs", "gateway-p50-µs"}},
			{{"direct /s", "direct-rps"}, {"proxy /s", "proxy-rps"}, {"gateway /s", "gateway-rps"}},
			{{"proxy MB", "proxy-MB"}, {"gateway MB", "gateway-MB"}, {"keeper MB", "keeper-MB"}},
		},
	},
	{
		title: "Inference gateway",
		text: "Model calls as above from one sandbox, with the gateway on a core of its own, and everything else (the provider double, the clients, the keeper) on\n" +
			"another. On the gateway's core, in turns with it, nginx and a reverse proxy in Go (`proxy`, as above) take the same calls from clients outside. TLS 1.3 on both\n" +
			"sides, connections are kept on both sides; `h1` and `h2` is what the provider speaks (nginx speaks h1 only). Bare: without limits, budgets and capture. CPU of the\n" +
			"process for each call, which holds on a busy machine too, and calls per second, with 32 connections (documents) and 16 (streams); `paced`: 200 calls a second by the\n" +
			"clock, p50 from when it is a call's turn; `handshakes`: what a call costs more on a connection of its own, without resumption. Memory: resident with one sandbox, and after\n" +
			"a garbage collection that is forced at 20,000 and at 100,000 calls; 16 MB of the heap are never touched. `slow-streams`: 2,000 at once over 20 connections of HTTP/2, each\n" +
			"says something every second, after as many before them. The gateway is built with an endpoint that collects garbage and counts (tag `ringfence_probe`).",
		pkg: "./test/bench", bench: "^BenchmarkInference$", flags: []string{"-benchtime", "10x"},
		tables: [][]column{
			{{"gateway CPU µs", "gateway-cpu-µs"}, {"proxy CPU µs", "proxy-cpu-µs"}, {"nginx CPU µs", "nginx-cpu-µs"}, {"gateway / proxy", "cpu-ratio"}, {"gateway /s", "gateway-per-s"}, {"proxy /s", "proxy-per-s"}, {"nginx /s", "nginx-per-s"}},
			{{"added p50 µs", "added-p50-µs"}, {"direct p50 µs", "direct-p50-µs"}, {"gateway p50 µs", "gateway-p50-µs"}, {"proxy p50 µs", "proxy-p50-µs"}, {"nginx p50 µs", "nginx-p50-µs"}, {"gateway p99 µs", "gateway-p99-µs"}},
			{{"gateway handshake µs", "gateway-handshake-µs"}, {"proxy handshake µs", "proxy-handshake-µs"}, {"nginx handshake µs", "nginx-handshake-µs"}},
			{{"one sandbox MB", "resident-MB"}, {"at 20,000 MB", "resident-20k-MB"}, {"at 100,000 MB", "resident-100k-MB"}, {"growth %", "growth-percent"}, {"heap at 20,000 MB", "heap-20k-MB"}, {"heap at 100,000 MB", "heap-100k-MB"}},
			{{"goroutines before", "before-goroutines"}, {"during", "during-goroutines"}, {"after", "after-goroutines"}, {"heap before MB", "before-heap-MB"}, {"during", "during-heap-MB"}, {"after", "after-heap-MB"}, {"resident during MB", "during-resident-MB"}, {"after", "after-resident-MB"}},
		},
	},
	{
		title: "Events",
		text: "How long after a refused connect its record is printed by `ringfence events --follow`, written and synced (the record's time is in whole\n" +
			"milliseconds); and a million refused connects of one sandbox to addresses that all differ, with what the log tells of them one by one and what it\n" +
			"does not account for.",
		pkg: "./test/bench", bench: "^Benchmark(DenialLatency|Flood)$", flags: []string{"-benchtime", "5x"},
		tables: [][]column{
			{{"median ms", "median-ms"}, {"slowest of 20 ms", "slowest-ms"}},
			{{"attempts /s", "attempts/s"}, {"records", "records"}, {"unaccounted", "unaccounted"}, {"keeper CPU ms", "keeper-cpu-ms"}},
		},
	},
	{
		title: "Event log",
		text:  "Events encoded as OCSF, chained, written and synced, by how many are appended at once.",
		pkg:   "./pkg/audit", bench: "^BenchmarkAppend$", flags: []string{"-benchtime", "1s"},
		tables: [][]column{{{"events /s", "events/s"}}},
	},
	{
		title: "Memory",
		text: "Resident memory of the two processes without a sandbox and with ten idle detached ones, and what each sandbox adds (proportional\n" +
			"share): its `ringfence-init`, and the process that holds the output of a detached one.",
		pkg: "./test/bench", bench: "^BenchmarkMemory$", flags: []string{"-benchtime", "5x"},
		tables: [][]column{{{"keeper MB", "keeper-MB"}, {"gateway MB", "gateway-MB"}, {"init MB", "init-pss-MB"}, {"output holder MB", "holder-pss-MB"}}},
	},
	{
		title: "Idle sandboxes",
		text: "What each of a hundred idle detached sandboxes takes in MB: the growth of the proportional shares of all processes, those of the node\n" +
			"included; of the kernel's own memory (slab, stacks, page tables, per-CPU); and what is less available on the machine. The last two have\n" +
			"in them whatever else ran. A thousand by hand: `RINGFENCE_BENCH_SANDBOXES=1000`; each takes 17 descriptors in the keeper and 10 in the gateway.\n" +
			"A thousand on 2026-11-30, beside other work: 1.5 processes, 1.6 kernel; an init 0.66, 0.69 the largest; keeper 201, gateway 70 in all.",
		pkg: "./test/bench", bench: "^BenchmarkIdle$", flags: []string{"-benchtime", "3x"},
		tables: [][]column{
			{{"processes MB", "processes-MB"}, {"kernel MB", "kernel-MB"}, {"not available MB", "taken-MB"}},
			{{"init MB", "init-pss-MB"}, {"largest init MB", "init-most-MB"}, {"output holder MB", "holder-pss-MB"}, {"keeper MB", "keeper-MB"}, {"gateway MB", "gateway-MB"}},
		},
	},
	{
		title: "Launch",
		text:  "`ringfence run -- true` against plain exec, and against bubblewrap where it is installed.",
		pkg:   "./test/bench", bench: "^BenchmarkLaunch", flags: []string{"-benchtime", "20x"},
	},
}
