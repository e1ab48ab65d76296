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

// A role that is taken away while a body is being sent does not count, and who has none
// is refused before it.
func TestARoleIsLostWhileTheBodyIsSent(t *testing.T) {
	needRootTest(t)
	for _, route := range []struct{ request, role, body string }{
		{"PUT /v1/policy", "org:acme policy-author uid:64010", `{"documents":[{"file":"a.yaml","text":"x"}]}`},
		{"POST /v1/providers", "org:* admin uid:64010", `{"name":"openai","key":"x"}`},
	} {
		for name, c := range map[string]struct {
			begins, stays bool
			want          int
		}{"it stays": {true, true, http.StatusOK}, "it is lost": {true, false, http.StatusForbidden}, "there is none": {false, false, http.StatusForbidden}} {
			t.Run(route.request+": "+name, func(t *testing.T) {
				var asked atomic.Int32
				admitted := make(chan struct{})
				f := newFake()
				f.access = func() Access {
					if asked.Add(1) == 1 {
						defer close(admitted)
						if c.begins {
							return bound(t, route.role)
						}
					} else if c.stays {
						return bound(t, route.role)
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
				send(fmt.Sprintf("%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", route.request, len(route.body), route.body[:5]))
				<-admitted
				if c.begins { // or the answer comes without
					send(route.body[5:])
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close() //nolint:errcheck // of the test
				if resp.StatusCode != c.want {
					t.Errorf("%s, want %d", resp.Status, c.want)
				}
				if kept := len(f.keys) > 0; kept && c.want != http.StatusOK {
					t.Error("a key was taken")
				}
			})
		}
	}
}
