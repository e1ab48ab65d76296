// SPDX-License-Identifier: Apache-2.0

package wire

// Place is one that answers model calls, as the gateway has seen it.
type Place struct {
	Provider, Model, Key string // names; Model "" is all models of a key
	State                uint8  // 0 closed, 1 open, 2 half-open
	Until                uint64 // open: milliseconds until it is probed
	Latency              uint64 // microseconds to the head of an answer, smoothed
	Running              uint32
	Why                  string // it was set aside, or failed last
}

// MaxPlaces bounds the list, so that it fits into one message.
const (
	MaxPlaces   = 40
	maxPlaceWhy = 256
)

// EncodePlaces and DecodePlaces carry the answer to TypePlaces. The texts are the
// gateway's, and only shown.
func EncodePlaces(list []Place) ([]byte, error) {
	var e Encoder
	e.Count(len(list), MaxPlaces)
	for i := range list {
		p := &list[i]
		for _, s := range []string{p.Provider, p.Model, p.Key, p.Why} {
			e.Str(s, maxPlaceWhy)
		}
		e.U8(p.State)
		e.U64(p.Until)
		e.U64(p.Latency)
		e.U32(p.Running)
	}
	return e.Payload()
}

func DecodePlaces(b []byte) ([]Place, error) {
	d := NewDecoder(b)
	var out []Place
	for n := d.Count(MaxPlaces); n > 0 && d.Err() == nil; n-- {
		var p Place
		for _, s := range []*string{&p.Provider, &p.Model, &p.Key, &p.Why} {
			*s = d.Str(maxPlaceWhy)
		}
		if p.State = d.U8(); p.State > 2 && d.Err() == nil {
			return nil, &ProtocolError{Msg: "a place in no known state"}
		}
		p.Until, p.Latency, p.Running = d.U64(), d.U64(), d.U32()
		out = append(out, p)
	}
	return out, d.End()
}
