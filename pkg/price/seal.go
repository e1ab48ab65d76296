// SPDX-License-Identifier: Apache-2.0

package price

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"time"
)

// The form of a book between our own processes: sealMagic, the number of tables, and
// for each its version, effective time (nanoseconds since 1970), source, and models:
// provider, name, rates, tiers, bounds. Numbers are uvarints, texts a length and
// bytes, rates a set of units and one number for each of its members.

const sealMagic = "RFPRICE1"

// ErrSealed is returned for bytes that AppendSealed did not write.
var ErrSealed = errors.New("price: malformed sealed book")

// AppendSealed appends the form that [OpenSealed] reads.
func (b *Book) AppendSealed(dst []byte) []byte {
	tables := b.Tables()
	dst = binary.AppendUvarint(append(dst, sealMagic...), uint64(len(tables)))
	for i := range tables {
		t := &tables[i]
		dst = appendText(appendText(dst, t.Version), t.Source)
		dst = binary.AppendUvarint(dst, uint64(max(t.Effective.UnixNano(), 0)))
		dst = binary.AppendUvarint(dst, uint64(len(t.Models)))
		for j := range t.Models {
			m := &t.Models[j]
			dst = m.Rates.append(appendText(appendText(dst, m.Provider), m.Name))
			dst = binary.AppendUvarint(dst, uint64(len(m.Tiers)))
			for k := range m.Tiers {
				dst = m.Tiers[k].append(binary.AppendUvarint(dst, m.Tiers[k].ContextOver))
			}
			dst = binary.AppendUvarint(binary.AppendUvarint(dst, m.MaxInput), m.MaxOutput)
		}
	}
	return dst
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func (r *Rates) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.set))
	for u := range Unit(Units) {
		if r.set.Has(u) {
			dst = binary.AppendUvarint(dst, uint64(r.rate[u]))
		}
	}
	return dst
}

// OpenSealed reads what AppendSealed wrote.
func OpenSealed(b []byte) (*Book, error) {
	if len(b) < len(sealMagic) || string(b[:len(sealMagic)]) != sealMagic {
		return nil, ErrSealed
	}
	o := opener{b: b[len(sealMagic):], seen: map[string]string{}}
	tables := make([]Table, o.count())
	for i := range tables {
		t := &tables[i]
		t.Version, t.Source = o.text(), o.text()
		t.Effective = time.Unix(0, int64(min(o.number(), math.MaxInt64))).UTC()
		t.Models = make([]Model, o.count())
		for j := range t.Models {
			o.model(&t.Models[j])
		}
	}
	if o.bad || len(o.b) > 0 {
		return nil, ErrSealed
	}
	return NewBook(tables...)
}

// opener takes values from the front; after the first that is not there all are zero.
type opener struct {
	b    []byte
	bad  bool
	seen map[string]string // providers repeat
}

func (o *opener) number() uint64 {
	v, n := binary.Uvarint(o.b)
	if n <= 0 || o.bad {
		o.bad = true
		return 0
	}
	o.b = o.b[n:]
	return v
}

// count is a number of things, each of which takes a byte at least.
func (o *opener) count() int {
	n := o.number()
	if n > uint64(len(o.b)) {
		o.bad = true
		return 0
	}
	return int(n)
}

func (o *opener) text() string {
	n := o.count()
	s, known := o.seen[string(o.b[:n])]
	if !known {
		s = string(o.b[:n])
		if len(o.seen) < 256 {
			o.seen[s] = s
		}
	}
	o.b = o.b[n:]
	return s
}

func (o *opener) model(m *Model) {
	m.Provider, m.Name = o.text(), o.text()
	o.rates(&m.Rates)
	if n := o.count(); n > 0 {
		m.Tiers = make([]Tier, n)
	}
	for i := range m.Tiers {
		m.Tiers[i].ContextOver = o.number()
		o.rates(&m.Tiers[i].Rates)
	}
	m.MaxInput, m.MaxOutput = o.number(), o.number()
}

func (o *opener) rates(r *Rates) {
	set := o.number()
	if bits.Len64(set) > Units {
		o.bad = true
		return
	}
	for ; set != 0; set &= set - 1 {
		v := o.number()
		if v > math.MaxInt64 {
			o.bad = true
			return
		}
		r.Set(Unit(bits.TrailingZeros64(set)), Rate(v))
	}
}
