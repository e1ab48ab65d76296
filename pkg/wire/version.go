// SPDX-License-Identifier: Apache-2.0

package wire

// Keeper and gateway are of one build, except between an upgrade and the end of
// the gateway that was there before it. So each speaks the version before its
// own too: whoever changes a message raises Version, makes the change depend on
// the version that is spoken, and forgets the version before the last.
//
//	1  ConfigReply without a version; an empty Config message
//	2  both say their version; TypeConnections
//	3  SandboxAdd carries ten descriptors instead of six, and Redirected with six or 38; protocols in the snapshot
//	5  SandboxAdd says who owns it and whether it learns; approvals are asked for many calls at once, and
//	   their settings have kinds.
//	   Two ahead of 3: neither side speaks to one that would not know

// Speak returns the version in which two sides talk, the lower of the two, or
// false where they are further apart than one.
func Speak(mine, theirs uint16) (version uint16, ok bool) {
	low, high := min(mine, theirs), max(mine, theirs)
	return low, low >= 1 && high-low <= 1
}

// Config is the payload of TypeConfig: the version of the keeper.
type Config struct{ Version uint16 }

// Encode of a Config cannot fail: it is of fixed size. Version 1 is not said.
func (m Config) Encode() []byte {
	var e Encoder
	if m.Version > 1 {
		e.U16(m.Version)
	}
	return e.B
}

func (m *Config) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Version = d.version()
	return d.End()
}

// version reads the last field of a message: version 1 did not say it.
func (d *Decoder) version() uint16 {
	if d.err != nil || len(d.b) == 0 {
		return 1
	}
	v := d.U16()
	if v < 2 && d.err == nil {
		d.err = &ProtocolError{"version 1 is not said"}
	}
	return v
}

// Connections is the answer to TypeConnections.
type Connections uint32

// Encode of Connections cannot fail: it is of fixed size.
func (m Connections) Encode() []byte { return ID(m).Encode() }

func (m *Connections) Decode(b []byte) error { return (*ID)(m).Decode(b) }
