// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/node"
)

// paced is a provider that sends its first words, and the second only when the
// test has seen the first come out of the client.
type paced struct {
	seen chan struct{}
	late chan bool // true: the first was not seen in time
}

func (p *paced) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	discard(r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(s string) {
		_, _ = fmt.Fprint(w, s)
		_ = http.NewResponseController(w).Flush()
	}
	word := func(s string) string {
		return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"` + s + `"},"finish_reason":null}]}` + "\n\n"
	}
	end := "data: [DONE]\n\n"
	if strings.HasSuffix(r.URL.Path, "/messages") {
		word = func(s string) string {
			return `event: content_block_delta` + "\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"` + s + `"}}` + "\n\n"
		}
		send("event: message_start\n" + `data: {"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}` + "\n\n" +
			"event: content_block_start\n" + `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n")
		end = "event: content_block_stop\n" + `data: {"type":"content_block_stop","index":0}` + "\n\n" +
			"event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}` + "\n\n" +
			"event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
	}
	send(word("first"))
	select {
	case <-p.seen:
		p.late <- false
	case <-time.After(20 * time.Second):
		p.late <- true
	case <-r.Context().Done():
		p.late <- true
	}
	send(word("second") + end)
}

const nodeStream = `
import OpenAI from "openai";
const s = await new OpenAI().chat.completions.create({ model: "m", stream: true, messages: [{ role: "user", content: "hi" }] });
for await (const c of s) console.log(c.choices[0]?.delta?.content ?? "");
`

const nodeMessages = `
import Anthropic from "@anthropic-ai/sdk";
const s = new Anthropic().messages.stream({ model: "m", max_tokens: 9, messages: [{ role: "user", content: "hi" }] });
for await (const e of s) if (e.type === "content_block_delta") console.log(e.delta.text);
`

const pythonStream = `
import urllib.request
body = b'{"model":"m","stream":true,"messages":[]}'
with urllib.request.urlopen(urllib.request.Request("https://api.openai.com/v1/chat/completions", data=body, headers={"Content-Type": "application/json"})) as r:
    for line in r: print(line.decode(), end="", flush=True)
`

// streams shows that no client waits for a chunk that the provider has sent.
func (a *agents) streams(t *testing.T) {
	defer a.upstream.set(a.double)
	put(t, a.ws, "stream.py", pythonStream)
	for _, c := range []struct {
		name string
		argv func(t *testing.T) []string
	}{
		{"curl", func(t *testing.T) []string {
			return []string{"curl", "-sSN", "https://api.anthropic.com/v1/messages", "-H", "content-type: application/json", "-d", `{"model":"m","max_tokens":9,"stream":true,"messages":[]}`}
		}},
		{"python", func(t *testing.T) []string { return []string{tool(t, "python3"), "stream.py"} }},
		{"node openai", func(t *testing.T) []string {
			a.clientProgram(t, "node-openai")
			put(t, a.ws, "node-openai/stream.mjs", nodeStream)
			return []string{"node", "node-openai/stream.mjs"}
		}},
		{"node anthropic", func(t *testing.T) []string {
			a.clientProgram(t, "node-anthropic")
			put(t, a.ws, "node-anthropic/stream.mjs", nodeMessages)
			return []string{"node", "node-anthropic/stream.mjs"}
		}},
		{"go", func(t *testing.T) []string {
			return []string{node.BuildInto(t, a.ws, "test/e2e/testdata/streamgo"), "openai"}
		}},
		{"go anthropic", func(t *testing.T) []string {
			return []string{node.BuildInto(t, a.ws, "test/e2e/testdata/streamgo"), "anthropic"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &paced{seen: make(chan struct{}), late: make(chan bool, 1)}
			a.upstream.set(p)
			cmd := a.n.Command(t.Context(), append([]string{"run", "--profile", "coding", "-T", "--"}, c.argv(t)...)...)
			cmd.Dir = a.ws
			var words []string
			first := false
			follow(t, cmd, func(line string) {
				if strings.Contains(line, "first") && !first {
					first = true
					close(p.seen)
				}
				words = append(words, line)
			})
			if all := strings.Join(words, "\n"); !strings.Contains(all, "first") || !strings.Contains(all, "second") {
				t.Fatalf("the client printed %q", all)
			}
			if <-p.late {
				t.Error("the first chunk reached the client only with the second")
			}
		})
	}
}

// follow runs a command and hands over its lines as they come.
func follow(t *testing.T, cmd *exec.Cmd, line func(string)) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	need(t, err)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	need(t, cmd.Start())
	for s := bufio.NewScanner(out); s.Scan(); {
		line(s.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %v: %s", cmd.Args, err, errOut.String())
	}
}
