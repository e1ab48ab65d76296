// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"crypto/sha256"
	"maps"
	"net/netip"
	"slices"
)

// Messages. The gateway asks the keeper for Resolve, Leaf, Append, Counters,
// approvals and money; the keeper tells the gateway the rest. Every one is answered.
const (
	TypeResolve       Type = 1 // ResolveRequest -> ResolveReply
	TypeLeaf          Type = 2 // LeafRequest -> LeafReply
	TypeAppend        Type = 3 // u16 count, then events in event's wire form -> empty
	TypeCounters      Type = 4 // empty -> CounterList
	TypeConfig        Type = 5 // Config + descriptor of a sealed JSON file -> ConfigReply; the first message
	TypeSnapshot      Type = 6 // descriptor of a sealed snapshot -> empty, when in force
	TypeSecrets       Type = 7 // descriptor of a sealed JSON file {name: value} -> empty
	TypeNames         Type = 8 // NameList -> empty; before SandboxAdd
	TypeSandboxAdd    Type = 9 // SandboxAdd + listeners -> empty
	TypeSandboxRemove Type = 10
	TypeListeners     Type = 11 // u32 sandbox -> empty + its listeners' descriptors
	TypeSandboxes     Type = 12 // empty -> u16 count, u32 ids
	TypeDrain         Type = 13
	TypeNode          Type = 14 // Node -> empty, when in use
	TypeRevisions     Type = 15 // empty -> u16 count, then u32 id and u64 policy revision of each sandbox
	TypeConnections   Type = 16 // empty -> Connections that are open; since version 2
	TypeApproval      Type = 17 // ApprovalRequest -> ApprovalReply
	TypeModelApproval Type = 18 // ModelApprovalRequest -> ApprovalReply
	TypePlaces        Type = 24 // empty -> Places; see EncodePlaces
	TypeWebhook       Type = 19 // Webhook -> WebhookReply; keeper and sender of webhooks alone
	TypePrices        Type = 25 // descriptor of a sealed price book -> empty, when in use
	TypeBudgets       Type = 20 // BudgetExchange -> BudgetReply
	TypeBudgetJournal Type = 21 // BudgetJournal, perhaps + its memory -> BudgetJournal + the memory that is used
)

// Bounds of strings in bytes, and of lists.
const (
	MaxName   = 255
	MaxText   = 1024
	MaxScope  = 512 // as much as an event holds
	MaxDER    = 8 << 10
	MaxPoint  = 65 // uncompressed P-256 point
	MaxLabels = 8

	MaxEntries = 4096                 // items of one list
	MaxIDs     = (MaxPayload - 2) / 4 // sandboxes of one list

	MaxRevisions = (MaxPayload - 2) / 12
)

// ResolveRequest asks what a name means for a sandbox.
type ResolveRequest struct {
	Sandbox uint32
	Name    string
}

// ResolveReply is the keeper's decision. Addr is valid only when Allowed.
type ResolveReply struct {
	Allowed    bool
	Exhausted  bool // the sandbox has used up its names: SERVFAIL
	Addr       netip.Addr
	Reason     string
	ReasonCode string
	Rule       string
	RuleAt     string
	Revision   uint64
}

// Encode and Decode of every message follow. A field over its bound is an error
// on both sides: *TooLongError, *ProtocolError.
func (m ResolveRequest) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Str(m.Name, MaxName)
	return e.Payload()
}

func (m *ResolveRequest) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Sandbox, m.Name = d.U32(), d.Str(MaxName)
	return d.End()
}

func (m ResolveReply) Encode() ([]byte, error) {
	var e Encoder
	e.Bool(m.Allowed)
	e.Bool(m.Exhausted)
	e.Addr(m.Addr)
	e.Str(m.Reason, MaxText)
	e.Str(m.ReasonCode, MaxName)
	e.Str(m.Rule, MaxText)
	e.Str(m.RuleAt, MaxText)
	e.U64(m.Revision)
	return e.Payload()
}

func (m *ResolveReply) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ResolveReply{Allowed: d.Bool(), Exhausted: d.Bool(), Addr: d.Addr(), Reason: d.Str(MaxText),
		ReasonCode: d.Str(MaxName), Rule: d.Str(MaxText), RuleAt: d.Str(MaxText), Revision: d.U64()}
	return d.End()
}

// LeafRequest asks for a certificate for Name on the P-256 key whose
// uncompressed point is Point.
type LeafRequest struct {
	Sandbox uint32
	Name    string
	Point   []byte
}

func (m LeafRequest) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Str(m.Name, MaxName)
	e.Bytes(m.Point, MaxPoint)
	return e.Payload()
}

func (m *LeafRequest) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Sandbox, m.Name, m.Point = d.U32(), d.Str(MaxName), d.Bytes(MaxPoint)
	return d.End()
}

// LeafReply carries the leaf and its issuer.
type LeafReply struct{ Leaf, CA []byte }

func (m LeafReply) Encode() ([]byte, error) {
	var e Encoder
	e.Bytes(m.Leaf, MaxDER)
	e.Bytes(m.CA, MaxDER)
	return e.Payload()
}

func (m *LeafReply) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Leaf, m.CA = d.Bytes(MaxDER), d.Bytes(MaxDER)
	return d.End()
}

// Counter is one sample of the keeper for /metrics.
type Counter struct {
	Name   string
	Labels []string
	Value  float64
}

// Names maps virtual addresses of one sandbox to names.
type Names struct {
	Sandbox uint32
	Entries []NameEntry
}

// NameEntry is one live name.
type NameEntry struct {
	Addr netip.Addr
	Name string
}

func (m Names) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.Sandbox)
	e.Count(len(m.Entries), MaxEntries)
	for _, n := range m.Entries {
		e.Addr(n.Addr)
		e.Str(n.Name, MaxName)
	}
	return e.Payload()
}

func (m *Names) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Sandbox = d.U32()
	for n := d.U16(); n > 0 && d.Err() == nil; n-- {
		m.Entries = append(m.Entries, NameEntry{d.Addr(), d.Str(MaxName)})
	}
	return d.End()
}

// SandboxAdd announces a sandbox. Its descriptors follow in this order:
// TCP4, TCP6, DNS TCP4, DNS TCP6, DNS UDP4, DNS UDP6, UDP4, UDP6, and the raw
// sockets for answers to datagrams over IPv4 and IPv6. A redirected one has the
// first six, and after them either none or the listeners of datagrams.
type SandboxAdd struct {
	ID      uint32
	Name    string
	Scope   string
	Explain bool
	Owner   uint32 // uid of the launcher
	// Redirected: what an accepted connection was meant for is not its local
	// address; the kernel is to be asked.
	Redirected bool
	Learns     bool // what no rule speaks of is let through, see policy.View.Learning
}

// How many descriptors SandboxAdd carries.
const (
	Listeners           = 10
	RedirectedListeners = 6
	DatagramListeners   = 32 // further ones of a redirected sandbox, or none
)

func (m SandboxAdd) Encode() ([]byte, error) {
	var e Encoder
	e.U32(m.ID)
	e.Str(m.Name, MaxName)
	e.Str(m.Scope, MaxScope)
	e.Bool(m.Explain)
	e.U32(m.Owner)
	e.Bool(m.Redirected)
	e.Bool(m.Learns)
	return e.Payload()
}

func (m *SandboxAdd) Decode(b []byte) error {
	d := NewDecoder(b)
	m.ID, m.Name, m.Scope, m.Explain, m.Owner = d.U32(), d.Str(MaxName), d.Str(MaxScope), d.Bool(), d.U32()
	m.Redirected, m.Learns = d.Bool(), d.Bool()
	return d.End()
}

// ID is the payload of SandboxRemove and Listeners.
type ID uint32

// Encode of an ID cannot fail: it is of fixed size.
func (m ID) Encode() []byte {
	var e Encoder
	e.U32(uint32(m))
	return e.B
}

func (m *ID) Decode(b []byte) error {
	d := NewDecoder(b)
	*m = ID(d.U32())
	return d.End()
}

// ConfigReply says what the gateway that answers really is. A gateway that a
// former keeper started may have another configuration than it is sent, and be
// another program.
type ConfigReply struct {
	Config     []byte   // SHA-256 of the configuration that it works with
	Binary     string   // which file it says that it executes, see keeper.BinaryID; nothing of this version believes it
	Unconfined []string // walls that it could not put around itself
	Version    uint16   // of the messages that it knows; 1 says nothing
}

// MaxUnconfined bounds ConfigReply.Unconfined.
const MaxUnconfined = 16

func (m ConfigReply) Encode() ([]byte, error) {
	var e Encoder
	e.Bytes(m.Config, sha256.Size)
	e.Str(m.Binary, MaxName)
	e.strs(m.Unconfined, MaxUnconfined)
	if m.Version > 1 {
		e.U16(m.Version)
	}
	return e.Payload()
}

func (m *ConfigReply) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Config, m.Binary, m.Unconfined = d.Bytes(sha256.Size), d.Str(MaxName), d.strs(MaxUnconfined)
	m.Version = d.version()
	return d.End()
}

// Node is what the gateway must know of the machine, which changes while it
// runs.
type Node struct {
	Resolvers []string     // "ip:port"
	OwnAddrs  []netip.Addr // closed like loopback
}

func (m Node) Encode() ([]byte, error) {
	var e Encoder
	e.strs(m.Resolvers, MaxEntries)
	e.Count(len(m.OwnAddrs), MaxEntries)
	for _, a := range m.OwnAddrs {
		e.Addr(a)
	}
	return e.Payload()
}

func (m *Node) Decode(b []byte) error {
	d := NewDecoder(b)
	m.Resolvers = d.strs(MaxEntries)
	for n := d.Count(MaxEntries); n > 0 && d.Err() == nil; n-- {
		m.OwnAddrs = append(m.OwnAddrs, d.Addr())
	}
	return d.End()
}

// strs carries a list of short strings.
func (e *Encoder) strs(list []string, max int) {
	e.Count(len(list), max)
	for _, s := range list {
		e.Str(s, MaxName)
	}
}

func (d *Decoder) strs(max int) (out []string) {
	for n := d.Count(max); n > 0 && d.err == nil; n-- {
		out = append(out, d.Str(MaxName))
	}
	return out
}

// EncodeCounters and DecodeCounters carry the keeper's samples.
func EncodeCounters(cs []Counter) ([]byte, error) {
	var e Encoder
	e.Count(len(cs), MaxEntries)
	for _, c := range cs {
		e.Str(c.Name, MaxName)
		if e.fits(len(c.Labels), MaxLabels) {
			e.U8(uint8(len(c.Labels)))
			for _, l := range c.Labels {
				e.Str(l, MaxName)
			}
		}
		e.U64(uint64(c.Value))
	}
	return e.Payload()
}

func DecodeCounters(b []byte) ([]Counter, error) {
	d := NewDecoder(b)
	var out []Counter
	for n := d.U16(); n > 0 && d.Err() == nil; n-- {
		c := Counter{Name: d.Str(MaxName)}
		for k := d.U8(); k > 0 && d.Err() == nil; k-- {
			c.Labels = append(c.Labels, d.Str(MaxName))
		}
		c.Value = float64(d.U64())
		out = append(out, c)
	}
	return out, d.End()
}

// EncodeIDs and DecodeIDs carry a list of sandbox numbers.
func EncodeIDs(ids []uint32) ([]byte, error) {
	var e Encoder
	e.Count(len(ids), MaxIDs)
	for _, id := range ids {
		e.U32(id)
	}
	return e.Payload()
}

func DecodeIDs(b []byte) ([]uint32, error) {
	d := NewDecoder(b)
	var out []uint32
	for n := d.U16(); n > 0 && d.Err() == nil; n-- {
		out = append(out, d.U32())
	}
	return out, d.End()
}

// EncodeRevisions and DecodeRevisions carry which policy revision counts for
// each sandbox.
func EncodeRevisions(revisions map[uint32]uint64) ([]byte, error) {
	var e Encoder
	e.Count(len(revisions), MaxRevisions)
	for _, id := range slices.Sorted(maps.Keys(revisions)) {
		e.U32(id)
		e.U64(revisions[id])
	}
	return e.Payload()
}

func DecodeRevisions(b []byte) (map[uint32]uint64, error) {
	d := NewDecoder(b)
	out := map[uint32]uint64{}
	for n := d.U16(); n > 0 && d.Err() == nil; n-- {
		id := d.U32()
		out[id] = d.U64()
	}
	return out, d.End()
}
