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

// ModelApprovalRequest asks likewise about one request to a model: about the model,
// and the tools that the provider would run for it.
type ModelApprovalRequest struct {
	Sandbox        uint32
	Dialect, Model string
	Arguments      [32]byte // hash of the whole request
	Shown          string   // what people read of it
	Tools          []ApprovalTool
	Waits          []string // of the model, then of each tool; none: a new request
}

// ApprovalTool is one of the tools.
type ApprovalTool struct {
	Name       string
	Definition [32]byte
	Shown      string
	Settings   []ApprovalSetting
}

// ApprovalSetting is one value in a request that asks for a tool.
type ApprovalSetting struct {
	Path string
	Kind string
	Hash [32]byte
	Text string // where Kept
	Kept bool
}

// Bounds of one such request: of the tools, and of the settings of all of them.
const (
	MaxApprovalTools    = 8
	MaxApprovalSettings = 128
	maxApprovalSetting  = 128 // of path and text
	maxApprovalKind     = 8
)

// Encode writes the request.
func (m ModelApprovalRequest) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Str(m.Dialect, MaxName)
	e.Str(m.Model, MaxText)
	e.hash(m.Arguments)
	e.Str(m.Shown, MaxText)
	e.Count(len(m.Tools), MaxApprovalTools)
	all := 0
	for _, t := range m.Tools {
		e.Str(t.Name, MaxName)
		e.hash(t.Definition)
		e.Str(t.Shown, MaxText)
		e.Count(len(t.Settings), MaxApprovalSettings-all)
		all += len(t.Settings)
		for _, s := range t.Settings {
			e.Str(s.Path, maxApprovalSetting)
			e.Str(s.Kind, maxApprovalKind)
			e.hash(s.Hash)
			e.Str(s.Text, maxApprovalSetting)
			e.Bool(s.Kept)
		}
	}
	e.ids(m.Waits)
	return e.Payload()
}

// Decode reads it.
func (m *ModelApprovalRequest) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ModelApprovalRequest{Sandbox: d.U32(), Dialect: d.Str(MaxName), Model: d.Str(MaxText), Arguments: d.hash(), Shown: d.Str(MaxText)}
	all := 0
	for range d.Count(MaxApprovalTools) {
		t := ApprovalTool{Name: d.Str(MaxName), Definition: d.hash(), Shown: d.Str(MaxText)}
		for range d.Count(MaxApprovalSettings - all) {
			t.Settings = append(t.Settings, ApprovalSetting{Path: d.Str(maxApprovalSetting), Kind: d.Str(maxApprovalKind), Hash: d.hash(), Text: d.Str(maxApprovalSetting), Kept: d.Bool()})
		}
		all += len(t.Settings)
		m.Tools = append(m.Tools, t)
	}
	m.Waits = d.ids()
	return d.End()
}

func (e *Encoder) hash(h [32]byte) { e.B = append(e.B, h[:]...) }

func (d *Decoder) hash() (h [32]byte) {
	copy(h[:], d.take(len(h)))
	return h
}

// ids are of approvals: of a model and the tools beside it.
func (e *Encoder) ids(list []string) {
	e.Count(len(list), 1+MaxApprovalTools)
	for _, id := range list {
		e.Str(id, MaxName)
	}
}

func (d *Decoder) ids() (out []string) {
	for range d.Count(1 + MaxApprovalTools) {
		out = append(out, d.Str(MaxName))
	}
	return out
}

// ApprovalOutcome is the keeper's word. The zero value refuses.
type ApprovalOutcome uint8

// Outcomes.
const (
	ApprovalRefused ApprovalOutcome = iota
	ApprovalWaits
	ApprovalReleased // this once: it is used up, or lasts
)

// ApprovalReply is the keeper's word. The lists have one item for a connection, and
// for a request one for the model and one for each tool.
type ApprovalReply struct {
	Outcome    ApprovalOutcome
	IDs        []string // of what waits or was decided; "" where nothing was
	Reason     string   // of a refusal
	ReasonCode string

	// Fingerprints are of the rules that asked: what was released opens nothing that
	// others demand. Zero where none asked.
	Fingerprints [][32]byte
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
	e.ids(m.IDs)
	e.Str(m.Reason, MaxText)
	e.Str(m.ReasonCode, MaxName)
	e.Count(len(m.Fingerprints), 1+MaxApprovalTools)
	for _, f := range m.Fingerprints {
		e.hash(f)
	}
	return e.Payload()
}

// Decode reads it. An outcome that is none of them is an error.
func (m *ApprovalReply) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ApprovalReply{Outcome: ApprovalOutcome(d.U8()), IDs: d.ids(), Reason: d.Str(MaxText), ReasonCode: d.Str(MaxName)}
	for range d.Count(1 + MaxApprovalTools) {
		m.Fingerprints = append(m.Fingerprints, d.hash())
	}
	if err := d.End(); err != nil {
		return err
	}
	if m.Outcome > ApprovalReleased {
		return &ProtocolError{"an outcome of an approval that is none"}
	}
	return nil
}
