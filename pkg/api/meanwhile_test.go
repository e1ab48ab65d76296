// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// A role that is taken away while a body is being sent does not count.
func TestARoleIsLostWhileTheBodyIsSent(t *testing.T) {
	needRootTest(t)
	const body = `{"documents":[{"file":"a.yaml","text":"x"}]}`
	for name, c := range map[string]struct {
		stays bool
		want  int
	}{"it stays": {true, http.StatusOK}, "it is lost": {false, http.StatusForbidden}} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			admitted := make(chan struct{})
			with := bound(t, "org:acme policy-author uid:64010")
			f := newFake()
			f.access = func() Access {
				if asked.Add(1) == 1 {
					defer close(admitted)
					return with
				}
				if c.stays {
					return with
				}
				return bound(t, "org:acme -")
			}
			conn := connectAs(t, serve(t, f, Options{}), 64010)
			_ = conn.SetDeadline(time.Now().Add(time.Minute)) // what hangs fails
			send := func(text string) {
				if _, err := conn.Write([]byte(text)); err != nil {
					t.Error(err)
				}
			}
			send(fmt.Sprintf("PUT /v1/policy HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:5]))
			<-admitted
			send(body[5:])
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close() //nolint:errcheck // of the test
			if resp.StatusCode != c.want {
				t.Errorf("%s, want %d", resp.Status, c.want)
			}
		})
	}
}
