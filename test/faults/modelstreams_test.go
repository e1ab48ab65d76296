// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/test/doubles"
	"github.com/ringfence/ringfence/test/node"
)

// endless is a provider whose streams go on until they are told to end.
type endless struct {
	double  *doubles.Provider
	end     chan struct{}
	running atomic.Int64
}

func (e *endless) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	if !strings.Contains(string(body), `"stream":true`) {
		req.Body = io.NopCloser(strings.NewReader(string(body)))
		e.double.ServeHTTP(w, req)
		return
	}
	e.running.Add(1)
	defer e.running.Add(-1)
	first, piece, end := "", `data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}`,
		`data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]"
	if strings.HasSuffix(req.URL.Path, "/messages") {
		first = `event: message_start` + "\n" + `data: {"type":"message_start","message":{"content":[]}}` + "\n\n"
		piece = `event: content_block_delta` + "\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}`
		end = `event: message_stop` + "\n" + `data: {"type":"message_stop"}`
	}
	w.Header().Set("Content-Type", "text/event-stream")
	say := func(s string) {
		_, _ = io.WriteString(w, s)
		_ = http.NewResponseController(w).Flush()
	}
	say(first)
	for {
		say(piece + "\n\n")
		select {
		case <-req.Context().Done():
			return
		case <-e.end:
			say(end + "\n\n")
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// streamed is what the program in the sandbox tells; see testdata/streams.
type streamed struct {
	Whole, Failed, Early int
	Broke                map[string]int
	After                []string
}

// openStreams has a sandbox open as many streams, and returns when each has said
// something. wait gives what came of them.
func openStreams(t *testing.T, n int) (nd *node.Node, provider *endless, wait func() streamed) {
	t.Helper()
	provider = &endless{double: doubles.NewProvider(), end: make(chan struct{})}
	srv, err := doubles.Serve(nil, provider)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	nd = node.Start(t, node.Options{})
	for dialect, path := range map[string]string{"openai": "/v1", "anthropic": ""} {
		cmd := nd.Command(t.Context(), "provider", "add", dialect, "--base-url", "http://"+srv.Addr.String()+path, "--key-env", "THE_KEY")
		cmd.Env = append(cmd.Env, "THE_KEY=sk-real-0123456789")
		if r := node.Finish(t, cmd); r.Code != 0 {
			t.Fatalf("provider add: %s", r.Stderr)
		}
	}
	ws := nd.Workspace(t)
	node.BuildInto(t, ws, "test/faults/testdata/streams")
	if r := nd.CLIIn(t, ws, "run", "--profile", "coding", "--detach", "--name", "agent", "--", "./streams", "result", fmt.Sprint(n)); r.Code != 0 {
		t.Fatalf("start the streams: %d %s", r.Code, r.Stderr)
	}
	there := func(name string) bool { _, err := os.Stat(filepath.Join(ws, name)); return err == nil }
	eventually(t, "each stream is open", func() bool { return there("result.open") })
	if got := provider.running.Load(); got != int64(n) {
		t.Fatalf("%d streams are open, want %d; log: %s", got, n, nd.CLI(t, "logs", "agent").Stdout)
	}
	return nd, provider, func() (r streamed) {
		t.Helper()
		eventually(t, "each stream has ended", func() bool { return there("result") })
		b, err := os.ReadFile(filepath.Join(ws, "result"))
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s", b)
		return r
	}
}

const manyStreams = 100

// A gateway that is killed says nothing any more: each stream breaks visibly and at
// once, none looks as if it were whole, nothing goes on towards the provider, and
// calls work again.
func TestKillTheGatewayInTheMiddleOfStreams(t *testing.T) {
	n, provider, wait := openStreams(t, manyStreams)
	n.KillGateway(t)
	r := wait()
	broke := 0
	for _, k := range r.Broke {
		broke += k
	}
	if broke != manyStreams || r.Early != 0 || len(r.After) != 0 {
		t.Errorf("%+v", r)
	}
	eventually(t, "the provider is let go of", func() bool { return provider.running.Load() == 0 })
	n.WaitEvent(t, "the gateway was lost", func(e *event.Event) bool { return e.Kind == event.KindDaemon && e.Activity == "gateway-lost" })
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}

// A keeper that is killed and started again does not touch them: each goes on to its
// end, and has one record.
func TestRestartTheKeeperInTheMiddleOfStreams(t *testing.T) {
	n, provider, wait := openStreams(t, manyStreams)
	n.KillDaemon(t)
	n.StartDaemon(t)
	close(provider.end)
	if r := wait(); r.Whole != manyStreams || len(r.After) != 0 {
		t.Errorf("%+v", r)
	}
	count := func() (streams int) {
		for _, e := range n.Events(t) {
			if e.Kind == event.KindInference && e.Stream {
				streams++
			}
		}
		return streams
	}
	eventually(t, "each stream is recorded", func() bool { return count() >= manyStreams })
	if got := count(); got != manyStreams {
		t.Errorf("%d records of %d streams", got, manyStreams)
	}
	if v := n.CLI(t, "audit", "verify"); v.Code != 0 {
		t.Errorf("audit verify: %s%s", v.Stdout, v.Stderr)
	}
}
