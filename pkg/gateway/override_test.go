// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/gateway/http1"
)

// What makes a server act on another request than the judged one is judged in
// one place: nothing with such a header is of the plainest form.
func TestOverridesAreNotPlain(t *testing.T) {
	parse := func(field string) error {
		var r http1.Request
		_, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n" + field + ": x\r\n\r\n"))
		return err
	}
	for _, h := range overrideHeaders {
		for _, spelled := range []string{h, strings.ToLower(h), strings.ToUpper(h)} {
			if err := parse(spelled); !errors.Is(err, http1.ErrOther) {
				t.Errorf("%s: %v", spelled, err)
			}
		}
	}
	if err := parse("X-Other"); err != nil {
		t.Errorf("another header: %v", err)
	}
}
