// SPDX-License-Identifier: Apache-2.0

package wire

// Webhook is one attempt at a delivery, which the keeper has the sender make.
type Webhook struct {
	ID   string
	Body []byte
}

// WebhookReply says what became of it; what the numbers mean is in pkg/webhook.
type WebhookReply struct {
	Outcome uint8
	Status  uint16
}

// Encode writes the delivery: the body is what is left.
func (m Webhook) Encode() ([]byte, error) {
	var e Encoder
	e.Str(m.ID, MaxName)
	e.B = append(e.B, m.Body...)
	return e.Payload()
}

// Decode reads it.
func (m *Webhook) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = Webhook{ID: d.Str(MaxName)}
	if d.Err() != nil {
		return d.Err()
	}
	m.Body = d.Rest()
	return nil
}

// Encode writes the reply.
func (m WebhookReply) Encode() []byte {
	var e Encoder
	e.U8(m.Outcome)
	e.U16(m.Status)
	return e.B
}

// Decode reads it.
func (m *WebhookReply) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = WebhookReply{Outcome: d.U8(), Status: d.U16()}
	return d.End()
}
