// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"reflect"
	"strings"
	"testing"
)

func TestPlacesTravel(t *testing.T) {
	var list []Place
	for i := range MaxPlaces {
		list = append(list, Place{Provider: strings.Repeat("p", maxPlaceWhy), Model: strings.Repeat("m", maxPlaceWhy), Key: strings.Repeat("k", maxPlaceWhy),
			Why: strings.Repeat("w", maxPlaceWhy), State: uint8(i % 3), Until: uint64(i), Latency: 1 << 40, Running: 7})
	}
	b, err := EncodePlaces(list)
	if err != nil || len(b) > MaxPayload {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	back, err := DecodePlaces(b)
	if err != nil || !reflect.DeepEqual(list, back) {
		t.Errorf("%v", err)
	}
	for cut := range b {
		if _, err := DecodePlaces(b[:cut]); err == nil {
			t.Fatalf("cut at %d of %d it is taken", cut, len(b))
		}
	}
	if _, err := DecodePlaces(append(b, 0)); err == nil {
		t.Error("a byte too many is taken")
	}
	if _, err := EncodePlaces(append(list, Place{})); err == nil {
		t.Error("one too many is sent")
	}
	one, _ := EncodePlaces([]Place{{Provider: "p"}})
	one[2+4+1+4+4+4] = 3
	if _, err := DecodePlaces(one); err == nil {
		t.Error("an unknown state is taken")
	}
}
