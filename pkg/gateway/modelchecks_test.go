// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
)

// checkAnswer looks at what the client got.
func (c cell) checkAnswer(t *testing.T, resp *http.Response, text string, want end, other bool) {
	t.Helper()
	if resp.StatusCode != want.status {
		t.Errorf("status %d, want %d: %s", resp.StatusCode, want.status, text)
	}
	said := text
	switch kind := resp.Header.Get("Content-Type"); {
	case want.how == "failed":
		if wrong := isError(c.dialect, []byte(text)); wrong != "" || kind != "application/json" {
			t.Errorf("no error of the dialect (%s): %s: %q", wrong, kind, text)
		}
		return
	case c.stream:
		if !strings.HasPrefix(kind, "text/event-stream") {
			t.Errorf("the stream's type is %q", kind)
		}
		var failed, ended bool
		said, failed, ended = c.readStream(t, text)
		if failed != (want.how == "cut") || ended != (want.how == "whole") {
			t.Errorf("failed %v, ended %v, want %s: %q", failed, ended, want.how, text)
		}
	case !json.Valid([]byte(text)) || kind != "application/json":
		t.Errorf("no document: %s: %q", kind, text)
	}
	who := "first"
	if other {
		who = "other"
	}
	if !strings.Contains(said, who+" of") || want.how == "whole" && !strings.Contains(said, who+" of them speaks here") {
		t.Errorf("not what the %s one says: %q", who, said)
	}
}

// readStream reads a stream as strictly as any client: each event is a document,
// nothing comes after its end. It gives the text, and how it ended.
func (c cell) readStream(t *testing.T, text string) (said string, failed, ended bool) {
	t.Helper()
	if !strings.HasSuffix(text, "\n\n") {
		t.Errorf("the stream ends inside an event: %q", text)
	}
	var b strings.Builder
	for _, ev := range strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		name, data := "", ""
		for line := range strings.SplitSeq(ev, "\n") {
			if v, ok := strings.CutPrefix(line, "event: "); ok {
				name = v
			} else if v, ok := strings.CutPrefix(line, "data: "); ok {
				data += v
			}
		}
		if data == "" && name == "" {
			continue // a comment
		}
		if failed || ended {
			t.Errorf("an event after the end: %q", ev)
		}
		if data == "[DONE]" {
			ended = true
			continue
		}
		var d struct {
			Type    string
			Error   json.RawMessage
			Delta   struct{ Text string }
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &d); err != nil {
			t.Errorf("an event is no document: %q: %v", ev, err)
			continue
		}
		if name == "error" || d.Error != nil {
			failed = true
			if wrong := isError(c.dialect, []byte(data)); wrong != "" {
				t.Errorf("no error of the dialect (%s): %q", wrong, ev)
			}
		}
		ended = ended || d.Type == "message_stop"
		b.WriteString(d.Delta.Text)
		for _, ch := range d.Choices {
			b.WriteString(ch.Delta.Content)
		}
	}
	return b.String(), failed, ended
}

// checkEvent looks at the record.
func (c cell) checkEvent(t *testing.T, ev *event.Event, want end, other bool) {
	t.Helper()
	name := c.provider()
	if other {
		name = "good-" + c.dialect
	}
	switch {
	case ev.Verdict != event.Allowed || ev.Provider != name || ev.Failed != (want.how != "whole") || int(ev.Status) != want.status || ev.Stream != c.stream:
		t.Errorf("the event tells something else: %+v", ev)
	case want.reason != "" && ev.ReasonCode != want.reason:
		t.Errorf("reason code %q, want %q: %+v", ev.ReasonCode, want.reason, ev)
	case want.how != "whole" && ev.Reason == "":
		t.Errorf("no reason: %+v", ev)
	case other != strings.HasPrefix(ev.Tried, c.provider()+"/") && want.how != "failed":
		t.Errorf("tried %q", ev.Tried)
	case want.how == "failed" && !strings.HasPrefix(ev.Tried, c.provider()+"/"):
		t.Errorf("tried %q", ev.Tried)
	case want.how == "whole" && (ev.TokensOut != 7 || ev.Estimated) && !c.stream:
		t.Errorf("usage: %+v", ev)
	case ev.End.Before(ev.Time) || ev.Duration < 0 || ev.Duration > 5*time.Minute || ev.End.Sub(ev.Time) > 5*time.Minute:
		t.Errorf("from %s to %s in %s", ev.Time, ev.End, ev.Duration)
	}
}

// checkTolls looks at what was paid: the request as a whole, and each attempt.
func (c cell) checkTolls(t *testing.T, book *tollbook, want end, other bool) {
	t.Helper()
	book.mu.Lock()
	defer book.mu.Unlock()
	list := []string{"request", c.provider()}
	if other {
		list = append(list, "good-"+c.dialect)
	}
	if len(book.list) != len(list) {
		t.Fatalf("%d grants, want %v", len(book.list), list)
	}
	for i, n := range book.list {
		answered := want.how != "failed" && (i == 0 || i == len(list)-1)
		switch {
		case n.what != list[i]:
			t.Errorf("grant %d is of %s, want %s", i, n.what, list[i])
		case n.done != 1 || n.sent != 1 || n.late:
			t.Errorf("%s: sent %d times, done %d times, sent after done %v", n.what, n.sent, n.done, n.late)
		case n.spent.Sent != (n.sent == 1):
			t.Errorf("%s: it left %v, and Sent was told %d times", n.what, n.spent.Sent, n.sent)
		case n.spent.Answered != answered:
			t.Errorf("%s: answered %v", n.what, n.spent.Answered)
		case answered && n.spent.Usage.Output == 0 || !answered && n.spent.Usage.Output != 0:
			t.Errorf("%s: usage %+v", n.what, n.spent.Usage)
		}
	}
}
