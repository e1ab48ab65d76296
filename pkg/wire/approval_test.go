// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

func TestApprovalRoundTrip(t *testing.T) {
	for _, want := range []ApprovalRequest{{}, {Sandbox: 7, Name: "a.test", Port: 443, Waits: "0011"}} {
		b, err := want.Encode()
		var got ApprovalRequest
		if err == nil {
			err = got.Decode(b)
		}
		if err != nil || got != want {
			t.Errorf("%+v %v", got, err)
		}
		if err := got.Decode(b[:len(b)-1]); err == nil {
			t.Error("a question that was cut short was read")
		}
		if err := got.Decode(append(b, 0)); err == nil {
			t.Error("a question with something behind was read")
		}
	}
	for _, want := range []ApprovalReply{{}, {Outcome: ApprovalWaits, IDs: []string{"1", "", "2"}}, {Outcome: ApprovalReleased, IDs: []string{"1"}, Reason: "r", ReasonCode: "c", Fingerprints: [][32]byte{{1, 31: 2}, {}}}} {
		b, err := want.Encode()
		var got ApprovalReply
		if err == nil {
			err = got.Decode(b)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v %v", got, err)
		}
	}
	for _, want := range []ModelApprovalRequest{{}, {Sandbox: 7, Dialect: "openai", Model: "m", Arguments: [32]byte{1, 31: 2}, Shown: "chat", Waits: []string{"0011", ""},
		Tools: []ApprovalTool{{Name: "web_search", Definition: [32]byte{3}, Shown: "it", Settings: []ApprovalSetting{{"max_uses", "number", [32]byte{4}, "5", true}, {"key", "", [32]byte{5}, "", false}}}, {Name: "mcp"}}}} {
		b, err := want.Encode()
		var got ModelApprovalRequest
		if err == nil {
			err = got.Decode(b)
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v %v", got, err)
		}
		if err := got.Decode(b[:len(b)-1]); err == nil {
			t.Error("a question that was cut short was read")
		}
	}
	var r ApprovalReply
	b, _ := ApprovalReply{Outcome: ApprovalReleased + 1}.Encode()
	if err := r.Decode(b); err == nil {
		t.Error("an outcome that is none was read")
	}
	many := ModelApprovalRequest{Tools: []ApprovalTool{{Settings: make([]ApprovalSetting, MaxApprovalSettings)}, {Settings: make([]ApprovalSetting, 1)}}}
	if _, err := many.Encode(); err == nil {
		t.Error("more settings than the bound were written")
	}
	for i := range many.Tools[0].Settings {
		many.Tools[0].Settings[i] = ApprovalSetting{Path: strings.Repeat("p", 128), Kind: strings.Repeat("k", maxApprovalKind), Text: strings.Repeat("t", 128), Kept: true}
	}
	many.Tools, many.Model, many.Shown = append(many.Tools[:1], make([]ApprovalTool, MaxApprovalTools-1)...), strings.Repeat("m", MaxText), strings.Repeat("s", MaxText)
	for i := range many.Tools {
		many.Tools[i].Shown = strings.Repeat("s", MaxText)
	}
	if b, err := many.Encode(); err != nil || len(b) > MaxPayload {
		t.Errorf("the largest that is within the bounds: %d bytes, %v", len(b), err)
	}
	if _, err := (ApprovalRequest{Name: strings.Repeat("a", MaxName+1)}).Encode(); err == nil {
		t.Error("a name beyond the bound was written")
	}
}

func FuzzApproval(f *testing.F) {
	q, _ := ApprovalRequest{Sandbox: 7, Name: "a.test", Port: 443, Waits: "0011"}.Encode()
	r, _ := ApprovalReply{Outcome: ApprovalWaits, IDs: []string{"0011"}, Fingerprints: [][32]byte{{7}}}.Encode()
	m, _ := ModelApprovalRequest{Sandbox: 7, Dialect: "openai", Model: "m", Shown: "chat", Waits: []string{"0011"}, Tools: []ApprovalTool{{Name: "mcp", Settings: []ApprovalSetting{{Path: "a", Kind: "number", Text: "5", Kept: true}}}}}.Encode()
	f.Add(q)
	f.Add(m)
	f.Add(r)
	f.Fuzz(func(t *testing.T, b []byte) {
		var q ApprovalRequest
		if err := q.Decode(b); err == nil {
			if again, err := q.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("two encodings of %+v: %v", q, err)
			}
		}
		var m ModelApprovalRequest
		if err := m.Decode(b); err == nil {
			if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("two encodings of %+v: %v", m, err)
			}
		}
		var r ApprovalReply
		if err := r.Decode(b); err == nil {
			if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("two encodings of %+v: %v", r, err)
			}
		}
	})
}

func FuzzWebhook(f *testing.F) {
	q, _ := Webhook{ID: "4be2-pending", Body: []byte("{}")}.Encode()
	f.Add(q)
	f.Add(WebhookReply{Outcome: 2, Status: 503}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		var q Webhook
		if err := q.Decode(b); err == nil {
			if again, err := q.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("two encodings of %+v: %v", q, err)
			}
		}
		var r WebhookReply
		if err := r.Decode(b); err == nil && !bytes.Equal(r.Encode(), b) {
			t.Fatalf("two encodings of %+v", r)
		}
	})
}
