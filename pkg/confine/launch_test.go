// SPDX-License-Identifier: Apache-2.0

package confine_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/confine"
	"github.com/ringfence/ringfence/test/env"
	"golang.org/x/sys/unix"
)

// Host identity used by sandboxes of this test; nobody on the host has it.
const testUID, testGID = 64321, 64322

// initPath is the program under test, probePath a copy of this test that any
// user can run.
var initPath, probePath string

// idmaps is shared as a keeper's would be.
var idmaps confine.Idmaps

func TestMain(m *testing.M) {
	if name := os.Getenv("CONFINE_PROBE"); name != "" {
		os.Exit(probe(name, os.Args[1:]))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "confine-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	initPath, probePath = filepath.Join(dir, "ringfence-init"), filepath.Join(dir, "probe")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = errors.Join(os.WriteFile(probePath, self, 0o755), os.Chmod(dir, 0o755))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if built := env.Built("ringfence-init"); built != "" {
		initPath = built
		defer idmaps.Close()
		return m.Run()
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", initPath, "github.com/ringfence/ringfence/cmd/ringfence-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build init: %v\n%s", err, out)
		return 1
	}
	defer idmaps.Close()
	return m.Run()
}

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: launches real sandboxes")
	}
	if confine.LandlockABI() == 0 {
		missing(tb, "Landlock")
	}
}

// missing skips, but not where CI promises the feature.
func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("RINGFENCE_CI") == "1" {
		tb.Fatalf("%s is missing although this machine should have it", what)
	}
	tb.Skipf("the kernel or machine lacks %s", what)
}

func cgroup2(tb testing.TB) string {
	tb.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		before, after, _ := strings.Cut(sc.Text(), " - ")
		if strings.HasPrefix(after, "cgroup2 ") {
			return strings.Fields(before)[4]
		}
	}
	missing(tb, "a mounted cgroup2 hierarchy")
	return ""
}

// allowAll is a filter that permits everything: the walls under test here are
// the others.
func allowAll() []byte {
	b := binary.LittleEndian.AppendUint16(nil, unix.BPF_RET|unix.BPF_K)
	return binary.LittleEndian.AppendUint32(append(b, 0, 0), unix.SECCOMP_RET_ALLOW)
}

// refuse is a filter that answers one call with errno and permits every other.
func refuse(call uint32, errno unix.Errno) []byte {
	var b []byte
	for _, ins := range []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number is the first word of struct seccomp_data
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
	} {
		b = binary.LittleEndian.AppendUint16(b, ins.Code)
		b = binary.LittleEndian.AppendUint32(append(b, ins.Jt, ins.Jf), ins.K)
	}
	return append(b, allowAll()...)
}

// box is one sandbox with the tool's end of its status socket.
type box struct {
	tb     testing.TB
	init   *confine.Init
	status *confine.Conn
	stdout *os.File
	cgroup string
	ready  *confine.Message
	waited bool
}

// world is a directory of the host that a test plays in: a workspace and a
// real home with a secret, owned by uid 1000.
type world struct{ dir, workspace, home, key string }

func newWorld(tb testing.TB) world {
	tb.Helper()
	dir, err := os.MkdirTemp("/var/lib", "confine-world")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	w := world{dir: dir, workspace: filepath.Join(dir, "ws"), home: filepath.Join(dir, "home")}
	w.key = filepath.Join(w.home, ".ssh/id_rsa")
	for _, d := range []string{w.workspace, filepath.Dir(w.key)} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(w.key, []byte("REAL KEY\n"), 0o644); err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(w.workspace, 1000, 1000)); err != nil {
		tb.Fatal(err)
	}
	return w
}

func input(tb testing.TB, w world) confine.PlanInput {
	tb.Helper()
	ws, err := os.OpenFile(w.workspace, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ws.Close() })
	return confine.PlanInput{
		Walls:     confine.Walls{Workspace: confine.WorkspaceReadWrite, MinLandlockABI: 1, Exec: []string{probePath}, TmpBytes: 64 << 20},
		SandboxID: "test", Identity: confine.Identity{UID: testUID, GID: testGID}, HostUID: testUID, HostGID: testGID,
		RealHome: w.home, Workspace: ws, WorkspaceTarget: w.workspace,
		Idmaps: &idmaps, Env: []string{"PATH=/usr/bin:/bin:/usr/sbin"}, SeccompFilter: allowAll(),
		CABundle: [][]byte{[]byte("BUN"), []byte("DLE\n")}, CACert: []byte("CA\n"),
	}
}

// launch starts argv and returns when the agent runs or was refused.
func launch(tb testing.TB, in confine.PlanInput, argv ...string) *box {
	tb.Helper()
	b := prepare(tb, in, argv...)
	if err := b.init.Conn.Send(confine.Frame{Type: confine.FrameGo}, nil); err != nil {
		tb.Fatal(err)
	}
	return b
}

// prepare does everything up to Ready.
func prepare(tb testing.TB, in confine.PlanInput, argv ...string) *box {
	tb.Helper()
	return prepareOther(tb, in, func(*confine.Spec) {}, argv...)
}

// prepareOther is prepare with a change to what was planned.
func prepareOther(tb testing.TB, in confine.PlanInput, change func(*confine.Spec), argv ...string) *box {
	tb.Helper()
	b := &box{tb: tb, cgroup: filepath.Join(cgroup2(tb), fmt.Sprintf("confine-test-%d-%d", os.Getpid(), time.Now().UnixNano()))}
	if err := os.Mkdir(b.cgroup, 0o755); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(b.close)
	cg, err := os.Open(b.cgroup)
	if err != nil {
		tb.Fatal(err)
	}
	defer cg.Close()
	status, peer, err := confine.Pair()
	if err != nil {
		tb.Fatal(err)
	}
	defer peer.Close()
	b.status = status
	in.Argv, in.Status = argv, peer
	if !in.TTY && in.Stdio[1] == nil {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			tb.Fatal(err)
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			tb.Fatal(err)
		}
		defer w.Close()
		b.stdout = r
		in.Stdio = [3]*os.File{null, w, w}
	}
	p, err := confine.Plan(in)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	change(&p.Spec)
	bin, err := initBinary()
	if err != nil {
		tb.Fatal(err)
	}
	b.init, err = confine.Start(confine.StartOptions{
		Init: bin, CgroupFD: int(cg.Fd()), UserNS: in.Identity.UserNS, HostUID: in.HostUID, HostGID: in.HostGID, Stderr: os.Stderr,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := p.Send(b.init.Conn); err != nil {
		tb.Fatal(err)
	}
	m := b.recv(b.init.Conn)
	if m.Type != confine.FrameReady {
		tb.Fatalf("init answered %d instead of Ready: %s", m.Type, m.Reason())
	}
	b.ready = m
	if int(m.Status) != confine.LandlockABI() {
		tb.Errorf("Ready reports Landlock ABI %d, the kernel has %d", m.Status, confine.LandlockABI())
	}
	return b
}

// initBinary is made once, as by a keeper.
var initBinary = sync.OnceValues(func() (*os.File, error) { return confine.InitBinary(initPath) })

func (b *box) recv(c *confine.Conn) *confine.Message {
	b.tb.Helper()
	if err := c.SetDeadline(time.Now().Add(env.Wait(20 * time.Second))); err != nil {
		b.tb.Fatal(err)
	}
	m, err := c.Recv()
	if err != nil {
		b.tb.Fatalf("receive: %v", err)
	}
	return m
}

// result waits for the end and returns the output and the exit status that the
// tool, the keeper and wait agree on.
func (b *box) result() (string, int) {
	b.tb.Helper()
	var out []byte
	if b.stdout != nil {
		var err error
		if out, err = io.ReadAll(b.stdout); err != nil {
			b.tb.Fatal(err)
		}
	}
	code := -1
	for _, c := range []*confine.Conn{b.status, b.init.Conn} {
		for {
			m := b.recv(c)
			if m.Type != confine.FrameExited && m.Type != confine.FrameFailed {
				m.Close()
				continue
			}
			if m.Type == confine.FrameFailed {
				out = append(out, m.Reason()...)
			}
			if code >= 0 && int(m.Status) != code {
				b.tb.Errorf("keeper was told %d, the tool %d", m.Status, code)
			}
			code = int(m.Status)
			break
		}
	}
	st, err := b.init.Process.Wait()
	b.waited = true
	if err != nil {
		b.tb.Fatal(err)
	}
	if st.ExitCode() != code {
		b.tb.Errorf("init exited with %d, reported %d", st.ExitCode(), code)
	}
	return string(bytes.TrimRight(out, "\n")), code
}

func (b *box) close() {
	if b.init != nil && !b.waited {
		_ = b.init.Process.Kill()
		_, _ = b.init.Process.Wait()
	}
	if b.init != nil {
		b.init.Conn.Close()
	}
	if b.status != nil {
		b.status.Close()
	}
	if b.stdout != nil {
		b.stdout.Close()
	}
	// The last process may take a moment to leave its cgroup.
	for range 100 {
		if err := os.Remove(b.cgroup); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.tb.Errorf("cgroup %s could not be removed", b.cgroup)
}

// sh runs a script in a sandbox of its own.
func sh(tb testing.TB, in confine.PlanInput, script string) (string, int) {
	tb.Helper()
	return launch(tb, in, "sh", "-c", script).result()
}
