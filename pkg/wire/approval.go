// SPDX-License-Identifier: Apache-2.0

package wire

// ApprovalRequest asks whether a connection to a name may go on that policy
// makes people decide. The keeper answers at once; who waits asks again.
type ApprovalRequest struct {
	Sandbox uint32
	Name    string
	Port    uint16
	Waits   string // the id of an answer that said so: this is no new call
}

// ModelApprovalRequest asks likewise about one request to a model.
type ModelApprovalRequest struct {
	Sandbox        uint32
	Dialect, Model string
	Arguments      [32]byte // hash of the whole request
	Shown          string   // what people read of it
	Waits          string
}

// Encode writes the request.
func (m ModelApprovalRequest) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Str(m.Dialect, MaxName)
	e.Str(m.Model, MaxText)
	for _, b := range m.Arguments {
		e.U8(b)
	}
	e.Str(m.Shown, MaxText)
	e.Str(m.Waits, MaxName)
	return e.Payload()
}

// Decode reads it.
func (m *ModelApprovalRequest) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ModelApprovalRequest{Sandbox: d.U32(), Dialect: d.Str(MaxName), Model: d.Str(MaxText)}
	for i := range m.Arguments {
		m.Arguments[i] = d.U8()
	}
	m.Shown, m.Waits = d.Str(MaxText), d.Str(MaxName)
	return d.End()
}

// ApprovalOutcome is the keeper's word. The zero value refuses.
type ApprovalOutcome uint8

// Outcomes.
const (
	ApprovalRefused ApprovalOutcome = iota
	ApprovalWaits
	ApprovalReleased // this once: it is used up, or lasts
)

// ApprovalReply is the keeper's word, with the id of what waits or was decided.
type ApprovalReply struct {
	Outcome    ApprovalOutcome
	ID         string
	Reason     string // of a refusal
	ReasonCode string

	// Fingerprint is of the rules that asked: what was released opens nothing that
	// others demand.
	Fingerprint [32]byte
}

// Encode writes the request.
func (m ApprovalRequest) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Str(m.Name, MaxName)
	e.U16(m.Port)
	e.Str(m.Waits, MaxName)
	return e.Payload()
}

// Decode reads it.
func (m *ApprovalRequest) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ApprovalRequest{Sandbox: d.U32(), Name: d.Str(MaxName), Port: d.U16(), Waits: d.Str(MaxName)}
	return d.End()
}

// Encode writes the reply.
func (m ApprovalReply) Encode() ([]byte, error) {
	var e Encoder
	e.U8(uint8(m.Outcome))
	e.Str(m.ID, MaxName)
	e.Str(m.Reason, MaxText)
	e.Str(m.ReasonCode, MaxName)
	for _, b := range m.Fingerprint {
		e.U8(b)
	}
	return e.Payload()
}

// Decode reads it. An outcome that is none of them is an error.
func (m *ApprovalReply) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ApprovalReply{Outcome: ApprovalOutcome(d.U8()), ID: d.Str(MaxName), Reason: d.Str(MaxText), ReasonCode: d.Str(MaxName)}
	for i := range m.Fingerprint {
		m.Fingerprint[i] = d.U8()
	}
	if err := d.End(); err != nil {
		return err
	}
	if m.Outcome > ApprovalReleased {
		return &ProtocolError{"an outcome of an approval that is none"}
	}
	return nil
}
