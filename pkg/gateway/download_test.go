// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
)

// Large answers come whole, however they are framed, and the record counts
// their bytes. A request goes on in the version of HTTP it came in.
func TestLargeAnswers(t *testing.T) {
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	r := newRig(t, httpPolicy, rigOptions{})
	r.web("any.test", 443, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Came-In", req.Proto)
		if req.URL.Path == "/sized" {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data)
			return
		}
		for rest, n := data, 1; len(rest) > 0; n = n*3 + 1 { // chunks of all sizes
			n = min(n%100_000, len(rest))
			_, _ = w.Write(rest[:n])
			rest = rest[n:]
		}
	})
	for _, h2 := range []bool{false, true} {
		client := r.inside(h2)
		for _, path := range []string{"/sized", "/chunked", "/sized", "/chunked"} { // on connections kept, too
			resp, err := client.Get("https://any.test" + path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s %s: %d of %d bytes, %v", resp.Proto, path, len(got), len(data), err)
			}
			if came := resp.Header.Get("Came-In"); came != resp.Proto || resp.ProtoMajor != map[bool]int{false: 1, true: 2}[h2] {
				t.Errorf("asked in %s, went on in %s", resp.Proto, came)
			}
			r.event(fmt.Sprint(resp.Proto, path), func(e *event.Event) bool {
				return e.Kind == event.KindHTTP && e.URL == "https://any.test"+path && e.BytesIn == uint64(len(data))
			})
		}
		client.CloseIdleConnections()
	}
	if n := r.g.buffers.lent.Load(); n != 0 {
		t.Errorf("%d buffers are lent when nothing is under way", n)
	}
}
