// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestHostileRequests(t *testing.T) {
	needRootTest(t) // as root, so that nothing is refused for another reason
	socket := serve(t, newFake(), Options{})
	many := strings.Repeat("x", MaxBody+1)
	tests := []struct {
		attempt
		status int
		code   Code
	}{
		{attempt{"no JSON", "POST", "/v1/allow", "hello", false}, 400, CodeBadRequest},
		{attempt{"empty", "POST", "/v1/allow", "", false}, 400, CodeBadRequest},
		{attempt{"unknown field", "POST", "/v1/allow", `{"destination":"a:1","mode":"once","sandbox":"web","admin":true}`, false}, 400, CodeBadRequest},
		{attempt{"field that is not the client's", "POST", "/v1/allow", `{"destination":"a:1","mode":"once","sandbox":"web","OnlyOwner":5}`, false}, 400, CodeBadRequest},
		{attempt{"two values", "POST", "/v1/allow", `{} {}`, false}, 400, CodeBadRequest},
		{attempt{"wrong type", "POST", "/v1/sandboxes", `{"argv":"true"}`, true}, 400, CodeBadRequest},
		{attempt{"deep nesting", "POST", "/v1/sandboxes", `{"argv":` + strings.Repeat("[", 20000), true}, 400, CodeBadRequest},
		{attempt{"too large", "POST", "/v1/allow", `{"destination":"` + many + `"}`, false}, 413, CodeTooLarge},
		{attempt{"launch too large", "POST", "/v1/sandboxes", `{"argv":["` + strings.Repeat("x", MaxLaunchBody) + `"]}`, true}, 413, CodeTooLarge},
		{attempt{"body where none belongs", "GET", "/v1/version", "x", false}, 400, CodeBadRequest},
		{attempt{"no command", "POST", "/v1/sandboxes", `{"argv":[]}`, true}, 400, CodeBadRequest},
		{attempt{"NUL in argv", "POST", "/v1/sandboxes", `{"argv":["a\u0000b"]}`, true}, 400, CodeBadRequest},
		{attempt{"env without =", "POST", "/v1/sandboxes", `{"argv":["a"],"env":["A"]}`, true}, 400, CodeBadRequest},
		{attempt{"env without name", "POST", "/v1/sandboxes", `{"argv":["a"],"env":["=A"]}`, true}, 400, CodeBadRequest},
		{attempt{"dir upwards", "POST", "/v1/sandboxes", `{"argv":["a"],"dir":"../x"}`, true}, 400, CodeBadRequest},
		{attempt{"dir absolute", "POST", "/v1/sandboxes", `{"argv":["a"],"dir":"/etc"}`, true}, 400, CodeBadRequest},
		{attempt{"workspace path unclean", "POST", "/v1/sandboxes", `{"argv":["a"],"workspacePath":"/a/../b"}`, true}, 400, CodeBadRequest},
		{attempt{"name with a slash", "POST", "/v1/sandboxes", `{"argv":["a"],"name":"../x"}`, true}, 400, CodeBadRequest},
		{attempt{"name with an escape", "POST", "/v1/sandboxes", `{"argv":["a"],"name":"a\u001b[2J"}`, true}, 400, CodeBadRequest},
		{attempt{"profile path", "POST", "/v1/sandboxes", `{"argv":["a"],"profile":{"name":"/etc/shadow"}}`, true}, 400, CodeBadRequest},
		{attempt{"policy by file name", "POST", "/v1/sandboxes", `{"argv":["a"],"policies":[{"file":"/etc/shadow"}]}`, true}, 400, CodeBadRequest},
		{attempt{"scope that is none", "POST", "/v1/sandboxes", `{"argv":["a"],"scope":"root"}`, true}, 400, CodeBadRequest},
		{attempt{"scope with a sandbox", "POST", "/v1/sandboxes", `{"argv":["a"],"scope":"org:a/team:b/agent:c/sandbox:d"}`, true}, 400, CodeBadRequest},
		{attempt{"detached terminal", "POST", "/v1/sandboxes", `{"argv":["a"],"detach":true,"tty":true}`, true}, 400, CodeBadRequest},
		{attempt{"allow without port", "POST", "/v1/allow", `{"destination":"a","mode":"once","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"allow port 0", "POST", "/v1/allow", `{"destination":"a:0","mode":"once","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"allow port 65536", "POST", "/v1/allow", `{"destination":"a:65536","mode":"once","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"allow everywhere", "POST", "/v1/allow", `{"destination":"a:1","mode":"once"}`, false}, 400, CodeBadRequest},
		{attempt{"allow no mode", "POST", "/v1/allow", `{"destination":"a:1","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"allow for nothing", "POST", "/v1/allow", `{"destination":"a:1","sandbox":"web","mode":"for"}`, false}, 400, CodeBadRequest},
		{attempt{"allow for a past", "POST", "/v1/allow", `{"destination":"a:1","sandbox":"web","mode":"for","for":"-1h"}`, false}, 400, CodeBadRequest},
		{attempt{"stop for ever", "POST", "/v1/sandboxes/web/stop", `{"timeout":"8760h"}`, false}, 400, CodeBadRequest},
		{attempt{"since nonsense", "GET", "/v1/events?since=yesterday", "", false}, 400, CodeBadRequest},
		{attempt{"unknown query", "GET", "/v1/events?uid=0", "", false}, 400, CodeBadRequest},
		{attempt{"flag nonsense", "GET", "/v1/events?denied=perhaps", "", false}, 400, CodeBadRequest},
		{attempt{"take back for a time", "DELETE", "/v1/allow", `{"destination":"a:1","mode":"for","for":"1h","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"take back once", "DELETE", "/v1/allow", `{"destination":"a:1","mode":"once","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"take back what lasts from a sandbox", "DELETE", "/v1/allow", `{"destination":"a:1","mode":"always","sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"take back from nobody", "DELETE", "/v1/allow", `{"destination":"a:1"}`, false}, 400, CodeBadRequest},
		{attempt{"take back nothing", "DELETE", "/v1/allow", `{"sandbox":"web"}`, false}, 400, CodeBadRequest},
		{attempt{"another flag's nonsense", "GET", "/v1/events?failed=perhaps", "", false}, 400, CodeBadRequest},
		{attempt{"provider removal by path", "DELETE", "/v1/providers/..%2f..%2fx", "", false}, 400, CodeBadRequest},
		{attempt{"provider name", "POST", "/v1/providers", `{"name":"../../etc/cron.d/x"}`, false}, 400, CodeBadRequest},
	}
	for _, tt := range tests {
		t.Run(tt.Name, func(t *testing.T) {
			o, err := try(socket, tt.attempt)
			if err != nil {
				t.Fatal(err)
			}
			if o.Status != tt.status || o.Code != tt.code {
				t.Errorf("got %d %s %s", o.Status, o.Code, o.Body)
			}
		})
	}
}

func TestOversizedHeaderIsRefused(t *testing.T) {
	socket := serve(t, newFake(), Options{})
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		_, _ = fmt.Fprintf(c, "GET /v1/version HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 4*MaxHeader))
	}()
	b, _ := io.ReadAll(c)
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 431")) {
		t.Errorf("%.60q", b)
	}
}

func TestStreamsSayWhyTheyBroke(t *testing.T) {
	b := newFake()
	b.eventsErr = Errorf(CodeUnavailable, "the log is being repaired")
	c := NewClient(serve(t, b, Options{}))
	var lines int
	err := c.Events(t.Context(), EventQuery{}, func([]byte) error { lines++; return nil })
	if CodeOf(err) != CodeUnavailable {
		t.Errorf("err = %v", err)
	}
	if os.Geteuid() == 0 && lines != len(b.events) {
		t.Errorf("%d lines", lines)
	}
}

func TestMembersSeeTheirEventsOnly(t *testing.T) {
	needRootTest(t)
	socket := serve(t, newFake(), Options{})
	got := asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{
		{Name: "events", Method: "GET", Path: "/v1/events"}, {Name: "list", Method: "GET", Path: "/v1/sandboxes"}})
	if got[0].Body != "{\"n\":\"member\"}\n" {
		t.Errorf("events: %q", got[0].Body)
	}
	var list []Sandbox
	if err := json.Unmarshal([]byte(got[1].Body), &list); err != nil || len(list) != 1 || list[0].ID != boxMember {
		t.Errorf("list: %+v %v", list, err)
	}
}

func TestMembersRulesTouchTheirSandboxesOnly(t *testing.T) {
	needRootTest(t)
	b := newFake()
	socket := serve(t, b, Options{})
	asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{{Name: "a", Method: "POST", Path: "/v1/allow",
		Body: `{"destination":"a:1","mode":"always","sandbox":"mine"}`}})
	asPeer(t, socket, memberUID, memberGID, nil, -1, []attempt{{Name: "a", Method: "DELETE", Path: "/v1/allow",
		Body: `{"destination":"a:1","sandbox":"mine"}`}})
	for _, list := range [][]AllowRequest{b.allowed, b.taken} {
		if len(list) != 1 || list[0].OnlyOwner == nil || *list[0].OnlyOwner != memberUID {
			t.Errorf("%+v", list)
		}
	}
}

func TestUnknownPeersAreRefused(t *testing.T) {
	tests := map[string]func(*Caller) (bool, error){
		"the question fails": func(*Caller) (bool, error) { return false, errors.New("broken") },
		"yes":                func(*Caller) (bool, error) { return true, nil },
	}
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			b := newFake()
			b.inSandbox = f
			c := NewClient(serve(t, b, Options{}))
			if _, err := c.Version(t.Context()); CodeOf(err) != CodeInSandbox {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("no cgroup", func(t *testing.T) {
		c := &peerConn{caller: &Caller{Role: RoleRoot}}
		if err := c.outsideSandbox(t.Context(), newFake()); CodeOf(err) != CodeInSandbox {
			t.Errorf("err = %v", err)
		}
	})
}

func TestClientErrors(t *testing.T) {
	c := NewClient("/nonexistent/socket")
	_, err := c.Version(t.Context())
	var u *UnreachableError
	if !errors.As(err, &u) || u.Remedy() == "" || strings.Contains(err.Error(), "http") {
		t.Errorf("%v", err)
	}
	c = NewClient(serve(t, newFake(), Options{}))
	_, err = c.Doctor(t.Context())
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeInternal || e.Message != "probe broke" {
		t.Errorf("%v", err)
	}
}

func TestCloseEndsFollowers(t *testing.T) {
	b := newFake()
	s, err := NewServer(Options{Backend: b, OperatorGID: os.Getegid()})
	if err != nil {
		t.Fatal(err)
	}
	socket := t.TempDir() + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	never := make(chan struct{})
	b.onLaunch = func(_ context.Context, _ *LaunchRequest, f *Files) (Session, error) {
		f.Close()
		return fakeSession{id: "x", done: never}, nil
	}
	files, _, _ := goodFiles(t)
	c := NewClient(socket)
	la, err := c.Launch(t.Context(), &LaunchRequest{Argv: []string{"x"}}, files)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := la.Next(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := la.Next(); err == nil {
		t.Error("the connection outlived the server")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	r := ProviderRequest{Name: "p", Key: "sk-secret"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", r.Key, "r", fmt.Sprintf("%v %+v %#v", r, r, r.Key))
	if strings.Contains(log.String(), "sk-secret") {
		t.Errorf("%s", log.String())
	}
	b, err := json.Marshal(r)
	if err != nil || !bytes.Contains(b, []byte("sk-secret")) {
		t.Errorf("a client cannot send it: %s %v", b, err)
	}
}

func TestAuditSeesChangesAndRefusals(t *testing.T) {
	seen := make(chan string, 10)
	b := newFake()
	o := Options{Audit: func(a Action) {
		seen <- fmt.Sprintf("%d %s %s %v", a.Caller.UID, a.Method, a.Path, CodeOf(a.Err))
	}}
	c := NewClient(serve(t, b, o))
	_, _ = c.Version(t.Context())
	_, _ = c.Allow(t.Context(), AllowRequest{Destination: "bad"})
	if got, want := <-seen, fmt.Sprintf("%d POST /v1/allow bad-request", os.Getuid()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	_ = WriteFrame(&b, Frame{Type: FrameExited, Exit: &Exit{Code: 3}})
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		fr, err := ReadFrame(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteFrame(&out, fr); err != nil && len(in) <= MaxFrame/2 {
			t.Fatal(err)
		}
	})
}
