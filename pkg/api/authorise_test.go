// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// attempt is one request that a peer of the table tries.
type attempt struct {
	Name, Method, Path, Body string
	Upgrade                  bool
}

// outcome is what came back.
type outcome struct {
	Status int
	Code   Code
	Body   string
}

const peerEnv = "RINGFENCE_API_TEST_PEER"

func TestMain(m *testing.M) {
	if socket := os.Getenv(peerEnv); socket != "" {
		os.Exit(peerMain(socket))
	}
	if socket := os.Getenv(connectEnv); socket != "" {
		os.Exit(connectMain(socket))
	}
	os.Exit(m.Run())
}

// peerMain is the child process: it tries each attempt of its standard input.
func peerMain(socket string) int {
	var list []attempt
	if err := json.NewDecoder(os.Stdin).Decode(&list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	out := make([]outcome, len(list))
	for i, a := range list {
		o, err := try(socket, a)
		if err != nil {
			fmt.Fprintln(os.Stderr, a.Name, err)
			return 1
		}
		out[i] = o
	}
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		return 1
	}
	return 0
}

func try(socket string, a attempt) (outcome, error) {
	c, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return outcome{}, err
	}
	defer c.Close()                                    //nolint:errcheck
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) //nolint:errcheck
	req, err := http.NewRequest(a.Method, "http://x"+a.Path, strings.NewReader(a.Body))
	if err != nil {
		return outcome{}, err
	}
	if a.Upgrade {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", UpgradeProtocol)
	}
	if err := req.Write(c); err != nil {
		return outcome{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{Status: resp.StatusCode}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return o, nil
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return outcome{}, err
	}
	var e Error
	if resp.StatusCode >= 400 {
		if err := json.Unmarshal(b, &e); err != nil || e.Message == "" {
			return outcome{}, fmt.Errorf("status %d without a JSON error: %q", resp.StatusCode, b)
		}
	}
	o.Code, o.Body = e.Code, string(b)
	return o, nil
}

// asPeer runs the attempts in a child process with those credentials, in the
// cgroup behind cgroupFD if it is not negative.
func asPeer(t *testing.T, socket string, uid, gid uint32, groups []uint32, cgroupFD int, list []attempt) []outcome {
	t.Helper()
	in, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{peerEnv + "=" + socket, "GORACE=atexit_sleep_ms=0"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	if cgroupFD >= 0 {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, cgroupFD
	}
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("peer uid=%d: %v", uid, err)
	}
	var out []outcome
	if err := json.Unmarshal(b, &out); err != nil || len(out) != len(list) {
		t.Fatalf("peer uid=%d: %v %s", uid, err, b)
	}
	return out
}

// cgroup2Root finds a writable v2 hierarchy.
func cgroup2Root(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		left, right, _ := strings.Cut(line, " - ")
		if strings.HasPrefix(right, "cgroup2 ") && strings.Fields(left)[3] == "/" {
			return strings.Fields(left)[4]
		}
	}
	if os.Getenv("RINGFENCE_CI") == "1" {
		t.Fatal("no cgroup v2 hierarchy is mounted")
	}
	t.Skip("no cgroup v2 hierarchy is mounted")
	return ""
}

// TestEveryRouteByEveryPeer tries every route of the table, and the requests
// whose body or object decides, as root, as a member, as a stranger, and as
// root and a member from inside a sandbox's cgroup.
func TestEveryRouteByEveryPeer(t *testing.T) {
	needRootTest(t)
	root := cgroup2Root(t)
	box := filepath.Join(root, fmt.Sprintf("ringfence-api-test-%d", os.Getpid()))
	if err := os.MkdirAll(filepath.Join(box, "inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{filepath.Join(box, "inner"), box} {
			if err := os.Remove(d); err != nil {
				t.Errorf("leftover cgroup: %v", err)
			}
		}
	})
	inner, err := os.Open(filepath.Join(box, "inner"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close() //nolint:errcheck

	b := newFake()
	b.inSandbox = func(c *Caller) (bool, error) {
		return strings.HasPrefix(c.Cgroup+"/", "/"+filepath.Base(box)+"/"), nil
	}
	socket := serve(t, b, Options{})

	const (
		launch = `{"argv":["true"],"detach":true,"profile":{"name":"default"}`
		allow  = `{"destination":"example.com:443","mode":"always"`
		back   = `{"destination":"example.com:443"`
	)
	tests := []struct {
		attempt
		root, member int // status; a stranger gets 403 everywhere, sandboxed peers too
	}{
		{attempt{"version", "GET", "/v1/version", "", false}, 200, 200},
		{attempt{"status", "GET", "/v1/status", "", false}, 200, 200},
		{attempt{"doctor that fails", "GET", "/v1/doctor", "", false}, 500, 500},
		{attempt{"list", "GET", "/v1/sandboxes", "", false}, 200, 200},
		{attempt{"launch", "POST", "/v1/sandboxes", launch + `}`, true}, 101, 101},
		{attempt{"launch as another user", "POST", "/v1/sandboxes", launch + `,"identity":{"uid":64009,"gid":64009}}`, true}, 101, 403},
		{attempt{"launch as uid 0", "POST", "/v1/sandboxes", launch + `,"identity":{"uid":0,"gid":0}}`, true}, 101, 403},
		{attempt{"launch as oneself by name", "POST", "/v1/sandboxes", launch + `,"identity":{"uid":64001,"gid":0}}`, true}, 101, 101},
		{attempt{"launch in another scope", "POST", "/v1/sandboxes", launch + `,"scope":"org:acme/team:x/agent:a"}`, true}, 101, 403},
		{attempt{"launch in a scope that begins alike", "POST", "/v1/sandboxes", launch + `,"scope":"org:local/team:default2/agent:a"}`, true}, 101, 403},
		{attempt{"launch in the default scope", "POST", "/v1/sandboxes", launch + `,"scope":"org:local/team:default/agent:a"}`, true}, 101, 101},
		{attempt{"launch without upgrade", "POST", "/v1/sandboxes", launch + `}`, false}, 400, 400},
		{attempt{"get own", "GET", "/v1/sandboxes/" + boxMember, "", false}, 200, 200},
		{attempt{"get own by name", "GET", "/v1/sandboxes/mine", "", false}, 200, 200},
		{attempt{"get another's", "GET", "/v1/sandboxes/" + boxOther, "", false}, 200, 404},
		{attempt{"get another's by name", "GET", "/v1/sandboxes/theirs", "", false}, 200, 404},
		{attempt{"get root's", "GET", "/v1/sandboxes/" + boxRoot, "", false}, 200, 404},
		{attempt{"get own in another scope", "GET", "/v1/sandboxes/" + boxScoped, "", false}, 200, 404},
		{attempt{"get none", "GET", "/v1/sandboxes/nosuch", "", false}, 404, 404},
		{attempt{"exec own", "POST", "/v1/sandboxes/mine/exec", `{"argv":["id"]}`, true}, 101, 101},
		{attempt{"exec another's", "POST", "/v1/sandboxes/theirs/exec", `{"argv":["id"]}`, true}, 101, 404},
		{attempt{"stop own", "POST", "/v1/sandboxes/mine/stop", `{"timeout":"1s"}`, false}, 200, 200},
		{attempt{"stop another's", "POST", "/v1/sandboxes/theirs/stop", `{}`, false}, 200, 404},
		{attempt{"adopt", "POST", "/v1/adopt", `{"pid":7}`, false}, 200, 403},
		{attempt{"adopt in the own scope", "POST", "/v1/adopt", `{"pid":7,"scope":"org:local/team:default/agent:a"}`, false}, 200, 403},
		{attempt{"adopt two things", "POST", "/v1/adopt", `{"pid":7,"cgroup":"/x"}`, false}, 400, 403},
		{attempt{"adopt by a path that is not clean", "POST", "/v1/adopt", `{"cgroup":"/x/../y"}`, false}, 400, 403},
		{attempt{"release", "POST", "/v1/sandboxes/web/release", "", false}, 200, 403},
		{attempt{"release own", "POST", "/v1/sandboxes/mine/release", "", false}, 200, 403},
		{attempt{"log own", "GET", "/v1/sandboxes/mine/log", "", false}, 200, 200},
		{attempt{"log another's", "GET", "/v1/sandboxes/theirs/log", "", false}, 200, 404},
		{attempt{"events", "GET", "/v1/events", "", false}, 200, 200},
		{attempt{"events own", "GET", "/v1/events?sandbox=mine", "", false}, 200, 200},
		{attempt{"events of another's", "GET", "/v1/events?sandbox=theirs", "", false}, 200, 404},
		{attempt{"events of one forgotten", "GET", "/v1/events?sandbox=ffff9999", "", false}, 200, 404},
		{attempt{"events of none", "GET", "/v1/events?sandbox=nosuch", "", false}, 404, 404},
		{attempt{"explain own", "GET", "/v1/events/e-member/explain", "", false}, 200, 200},
		{attempt{"explain another's", "GET", "/v1/events/e-root/explain", "", false}, 200, 404},
		{attempt{"allow own", "POST", "/v1/allow", allow + `,"sandbox":"mine"}`, false}, 200, 200},
		{attempt{"allow another's", "POST", "/v1/allow", allow + `,"sandbox":"theirs"}`, false}, 200, 404},
		{attempt{"allow own scope", "POST", "/v1/allow", allow + `,"scope":"org:local/team:default/agent:a"}`, false}, 200, 403},
		{attempt{"allow another scope", "POST", "/v1/allow", allow + `,"scope":"org:local"}`, false}, 200, 403},
		{attempt{"take back own", "DELETE", "/v1/allow", back + `,"sandbox":"mine"}`, false}, 200, 200},
		{attempt{"take back another's", "DELETE", "/v1/allow", back + `,"sandbox":"theirs"}`, false}, 200, 404},
		{attempt{"take back in own scope", "DELETE", "/v1/allow", back + `,"mode":"always","scope":"org:local/team:default/agent:a"}`, false}, 200, 403},
		{attempt{"take back in another scope", "DELETE", "/v1/allow", back + `,"scope":"org:local"}`, false}, 200, 403},
		{attempt{"policy check", "POST", "/v1/policy/check", `{"documents":[]}`, false}, 200, 200},
		{attempt{"policy of the node", "GET", "/v1/policy", "", false}, 200, 403},
		{attempt{"policy apply", "PUT", "/v1/policy", `{"documents":[{"file":"a.yaml","text":"x"}]}`, false}, 200, 403},
		{attempt{"policy apply of nothing", "PUT", "/v1/policy", `{"documents":[]}`, false}, 400, 403},
		{attempt{"policy delete", "DELETE", "/v1/policy/eng", "", false}, 200, 403},
		{attempt{"policy use", "GET", "/v1/policy/use", "", false}, 200, 403},
		{attempt{"policy in force", "GET", "/v1/policy/enforced?revision=3&timeout=1s", "", false}, 200, 403},
		{attempt{"policy in force, no revision", "GET", "/v1/policy/enforced?timeout=1s", "", false}, 400, 403},
		{attempt{"policy in force, for ever", "GET", "/v1/policy/enforced?revision=3&timeout=11m", "", false}, 400, 403},
		{attempt{"costs", "GET", "/v1/costs?by=team,model&from=2026-11-01&to=2026-11-30", "", false}, 200, 200},
		{attempt{"costs by nothing known", "GET", "/v1/costs?by=sandbox", "", false}, 400, 400},
		{attempt{"costs by one thing twice", "GET", "/v1/costs?by=team,team", "", false}, 400, 400},
		{attempt{"costs of no day", "GET", "/v1/costs?from=yesterday", "", false}, 400, 400},
		{attempt{"prices", "GET", "/v1/prices", "", false}, 200, 200},
		{attempt{"add prices", "PUT", "/v1/prices", `{"file":"p.yaml","text":"x"}`, false}, 200, 403},
		{attempt{"add no prices", "PUT", "/v1/prices", `{"file":"p.yaml","text":""}`, false}, 400, 403},
		{attempt{"remove prices", "DELETE", "/v1/prices/v", "", false}, 200, 403},
		{attempt{"policy documents", "GET", "/v1/policy/documents?name=eng&revision=3", "", false}, 200, 403},
		{attempt{"policy documents, no number", "GET", "/v1/policy/documents?revision=x", "", false}, 400, 403},
		{attempt{"policy history", "GET", "/v1/policy/history?limit=20&before=9", "", false}, 200, 403},
		{attempt{"policy history, too much", "GET", "/v1/policy/history?limit=1001", "", false}, 400, 403},
		{attempt{"policy diff", "GET", "/v1/policy/diff?from=3", "", false}, 200, 403},
		{attempt{"policy diff of nothing", "GET", "/v1/policy/diff?to=3", "", false}, 400, 403},
		{attempt{"policy rollback", "POST", "/v1/policy/rollback", `{"revision":3,"comment":"back"}`, false}, 200, 403},
		{attempt{"policy rollback to nothing", "POST", "/v1/policy/rollback", `{"revision":0}`, false}, 400, 403},
		{attempt{"policy rollback, two lines", "POST", "/v1/policy/rollback", `{"revision":3,"comment":"a\nb"}`, false}, 400, 403},
		{attempt{"policy apply, a long comment", "PUT", "/v1/policy", `{"documents":[{"file":"a.yaml","text":"x"}],"comment":"` + strings.Repeat("x", 1025) + `"}`, false}, 400, 403},
		{attempt{"policy of own", "GET", "/v1/policy?sandbox=mine", "", false}, 200, 200},
		{attempt{"policy of another's", "GET", "/v1/policy?sandbox=theirs", "", false}, 200, 404},
		{attempt{"approvals", "GET", "/v1/approvals", "", false}, 200, 200},
		{attempt{"approvals, all", "GET", "/v1/approvals?all=maybe", "", false}, 400, 400},
		{attempt{"approvals watched", "GET", "/v1/approvals/watch", "", false}, 200, 200},
		{attempt{"approval of own", "GET", "/v1/approvals/a-" + boxMember, "", false}, 200, 200},
		{attempt{"approval of another's", "GET", "/v1/approvals/a-" + boxOther, "", false}, 200, 404},
		{attempt{"approval of own in another scope", "GET", "/v1/approvals/a-" + boxScoped, "", false}, 200, 404},
		{attempt{"approval of root's that names the member", "GET", "/v1/approvals/a-" + boxRoot, "", false}, 200, 200},
		{attempt{"approval of nobody's", "GET", "/v1/approvals/nosuch", "", false}, 404, 404},
		{attempt{"vote on own", "POST", "/v1/approvals/a-" + boxMember + "/vote", `{"approve":true}`, false}, 200, 200},
		{attempt{"vote on another's", "POST", "/v1/approvals/a-" + boxOther + "/vote", `{"approve":true}`, false}, 200, 404},
		{attempt{"deny another's", "POST", "/v1/approvals/a-" + boxOther + "/vote", `{}`, false}, 200, 404},
		{attempt{"vote on own in another scope", "POST", "/v1/approvals/a-" + boxScoped + "/vote", `{"approve":true}`, false}, 200, 404},
		{attempt{"vote as one who is named", "POST", "/v1/approvals/a-" + boxRoot + "/vote", `{"approve":true,"lasts":"for","for":"1h"}`, false}, 200, 200},
		{attempt{"vote on nobody's", "POST", "/v1/approvals/nosuch/vote", `{"approve":true}`, false}, 404, 404},
		{attempt{"vote for ever", "POST", "/v1/approvals/a-" + boxMember + "/vote", `{"approve":true,"lasts":"always"}`, false}, 400, 400},
		{attempt{"vote for no time", "POST", "/v1/approvals/a-" + boxMember + "/vote", `{"approve":true,"lasts":"for"}`, false}, 400, 400},
		{attempt{"vote with a role of one's own", "POST", "/v1/approvals/a-" + boxMember + "/vote", `{"approve":true,"Role":true}`, false}, 400, 400},
		{attempt{"rule of an approval", "POST", "/v1/approvals/a-" + boxMember + "/rule", `{"apply":true}`, false}, 200, 403},
		{attempt{"rule of nobody's", "POST", "/v1/approvals/nosuch/rule", `{}`, false}, 404, 403},
		{attempt{"drafts", "GET", "/v1/approvals/drafts", "", false}, 200, 200},
		{attempt{"rule of a draft", "POST", "/v1/approvals/drafts/draft-all/rule", `{}`, false}, 200, 403},
		{attempt{"deny for a time", "POST", "/v1/approvals/a-" + boxMember + "/vote", `{"lasts":"once"}`, false}, 400, 400},
		{attempt{"inference", "GET", "/v1/inference", "", false}, 200, 403},
		{attempt{"budgets", "GET", "/v1/budgets", "", false}, 200, 200},
		{attempt{"increase of own", "POST", "/v1/budgets/increase", `{"name":"eng/month","amount":5,"for":"1h"}`, false}, 200, 403},
		{attempt{"increase of a wider one", "POST", "/v1/budgets/increase", `{"name":"all/day","scope":"org:local","amount":5,"for":"1h"}`, false}, 200, 404},
		{attempt{"increase of one of two", "POST", "/v1/budgets/increase", `{"name":"all/day","amount":5,"for":"1h"}`, false}, 400, 404},
		{attempt{"increase of nobody's", "POST", "/v1/budgets/increase", `{"name":"x/y","amount":5,"for":"1h"}`, false}, 404, 404},
		{attempt{"increase for another account", "POST", "/v1/budgets/increase", `{"name":"eng/each","who":"org:x","amount":5,"for":"1h"}`, false}, 404, 403},
		{attempt{"increase by nothing", "POST", "/v1/budgets/increase", `{"name":"eng/month","amount":0,"for":"1h"}`, false}, 400, 400},
		{attempt{"increase for ever", "POST", "/v1/budgets/increase", `{"name":"eng/month","amount":5}`, false}, 400, 400},
		{attempt{"providers", "GET", "/v1/providers", "", false}, 200, 403},
		{attempt{"provider add", "POST", "/v1/providers", `{"name":"p","key":"sk-1"}`, false}, 200, 403},
		{attempt{"provider remove", "DELETE", "/v1/providers/p", "", false}, 200, 403},
		{attempt{"audit verify", "GET", "/v1/audit/verify", "", false}, 200, 403},
		{attempt{"unknown path", "GET", "/v1/nosuch", "", false}, 404, 404},
		{attempt{"wrong method", "DELETE", "/v1/sandboxes/mine", "", false}, 404, 404},
		{attempt{"path tricks", "GET", "/v1/sandboxes/%2e%2e", "", false}, 404, 404},
	}
	list := make([]attempt, len(tests))
	tried := map[string]bool{}
	for i, tt := range tests {
		list[i] = tt.attempt
		tried[tt.Method+" "+tt.Path] = true
	}
	t.Run("the table covers every route", func(t *testing.T) { coversRoutes(t, list) })

	check := func(name string, got []outcome, want func(i int) (int, Code)) {
		t.Run(name, func(t *testing.T) {
			for i, o := range got {
				status, code := want(i)
				if o.Status != status || code != "" && o.Code != code {
					t.Errorf("%s: got %d %s %s, want %d %s", tests[i].Name, o.Status, o.Code, o.Body, status, code)
				}
			}
		})
	}
	all := func(code Code) func(int) (int, Code) { return func(int) (int, Code) { return 403, code } }
	check("root", asPeer(t, socket, 0, 0, nil, -1, list), func(i int) (int, Code) { return tests[i].root, "" })
	check("member by supplementary group", asPeer(t, socket, memberUID, memberUID, []uint32{5, memberGID}, -1, list),
		func(i int) (int, Code) { return tests[i].member, "" })
	check("member by primary group", asPeer(t, socket, memberUID, memberGID, nil, -1, list),
		func(i int) (int, Code) { return tests[i].member, "" })
	check("stranger", asPeer(t, socket, memberUID, memberUID, []uint32{5, 6}, -1, list), all(CodeDenied))
	check("uid 0 in a sandbox's cgroup", asPeer(t, socket, 0, 0, nil, int(inner.Fd()), list), all(CodeInSandbox))
	check("member in a sandbox's cgroup", asPeer(t, socket, memberUID, memberGID, nil, int(inner.Fd()), list), all(CodeInSandbox))

	for _, v := range b.votes {
		if v.role != (v.uid == 0) {
			t.Errorf("uid %d voted with the role %v", v.uid, v.role)
		}
	}
	for _, k := range b.keys {
		if k != "sk-1" {
			t.Errorf("key %q", k)
		}
	}
	for _, a := range append(b.allowed, b.taken...) {
		if a.Sandbox == "mine" {
			t.Error("a name reached the backend unresolved")
		}
	}
	for _, name := range b.removed {
		if name != "p" {
			t.Errorf("provider %q", name)
		}
	}
}

// coversRoutes fails when a row of routes is tried by no attempt.
func coversRoutes(t *testing.T, list []attempt) {
	mux := http.NewServeMux()
	hit := map[string]bool{}
	for _, rt := range routes {
		mux.HandleFunc(rt.method+" "+rt.path, func(http.ResponseWriter, *http.Request) { hit[rt.method+" "+rt.path] = true })
		if rt.need == needRefused {
			t.Errorf("%s %s states no requirement", rt.method, rt.path)
		}
	}
	for _, a := range list {
		req, err := http.NewRequest(a.Method, "http://x"+a.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if h, pattern := mux.Handler(req); pattern != "" {
			h.ServeHTTP(nil, req)
		}
	}
	for _, rt := range routes {
		if !hit[rt.method+" "+rt.path] {
			t.Errorf("no attempt at %s %s", rt.method, rt.path)
		}
	}
}

func TestAdmitIsClosedByDefault(t *testing.T) {
	root := &Caller{Role: RoleRoot}
	root.Rights = RightsOf(root, Access{})
	member := &Caller{UID: 7, Role: RoleMember}
	member.Rights = RightsOf(member, Access{})
	tests := []struct {
		name string
		c    *Caller
		n    need
		ok   bool
	}{
		{"nobody", nil, needMember, false},
		{"zero caller is uid 0 without a role", &Caller{}, needMember, false},
		{"root whose rights were not asked", &Caller{Role: RoleRoot}, needMember, false},
		{"zero need, root", root, needRefused, false},
		{"zero need, member", member, needRefused, false},
		{"a need that does not exist", root, need(99), false},
		{"root route, member", member, needRoot, false},
		{"root route, root", root, needRoot, true},
		{"node route, member", member, needNode, false},
		{"member route, member", member, needMember, true},
		{"owner route, member", member, needOwner, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := admit(tt.c, tt.n); (err == nil) != tt.ok {
				t.Errorf("err = %v, want admitted = %v", err, tt.ok)
			}
		})
	}
	mine := &Sandbox{Owner: 7, Scope: DefaultScope + "/agent:a"}
	for n, ok := range map[need]bool{needRefused: false, 99: false, needSee: true, needOwner: true, needStop: true} {
		if err := admitBox(member, n, mine); (err == nil) != ok {
			t.Errorf("need %d: own sandbox: %v", n, err)
		}
	}
}

func TestDefaultScope(t *testing.T) {
	tests := map[string]bool{
		"org:local/team:default":                     true,
		"org:local/team:default/agent:x":             true,
		"org:local/team:default/agent:x/sandbox:s":   true,
		"team:default/org:local":                     true,
		"":                                           false,
		"org:local":                                  false,
		"org:local/team:default2":                    false,
		"org:local/team:defaul":                      false,
		"org:local/team:default/":                    false,
		"org:local/team:default/agent:":              false,
		"org:local/team:default/org:acme":            false,
		"org:*/team:default/agent:x":                 false,
		"org:local/team:def*":                        false,
		"org:local/team:default/agent:x org:acme":    false,
		"org:local/team:default/agent:x/server:jira": false,
		"org:local/team:default/agent:x/../team:y":   false,
	}
	member := RightsOf(&Caller{UID: 7, Role: RoleMember}, Access{})
	for scope, want := range tests {
		if got := member.mayIn(policy.RightLaunch, scope); got != want {
			t.Errorf("%q: %v, want %v", scope, got, want)
		}
	}
}

func TestMembersRunAsThemselvesOnly(t *testing.T) {
	c := &Caller{UID: 7, GID: 8, Groups: []uint32{9}, Role: RoleMember}
	c.Rights = RightsOf(c, Access{})
	r := &LaunchRequest{Identity: &Identity{UID: 7, GID: 0, Groups: []uint32{0, 27}, Name: "x", Home: "/home/x"}}
	if err := admitLaunch(c, r); err != nil {
		t.Fatal(err)
	}
	if r.Identity.GID != 8 || len(r.Identity.Groups) != 1 || r.Identity.Groups[0] != 9 {
		t.Errorf("groups came from the body: %+v", r.Identity)
	}
	r = &LaunchRequest{}
	if err := admitLaunch(c, r); err != nil || r.Identity == nil || r.Identity.UID != 7 {
		t.Errorf("no identity: %+v, %v", r.Identity, err)
	}
	if err := admitLaunch(&Caller{}, &LaunchRequest{}); err == nil {
		t.Error("a caller without a role was admitted")
	}
}
