// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const connectEnv = "RINGFENCE_API_TEST_CONNECT"

// connectMain is the child process: it connects, hands the connection to its
// parent by descriptor 3, and lives until its standard input ends, for the server
// looks at who connected.
func connectMain(socket string) int {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return 1
	}
	f, err := c.(*net.UnixConn).File()
	if err != nil {
		return 2
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
		return 3
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// connectAs returns a connection that a process of another user made.
func connectAs(t *testing.T, socket string, uid uint32) net.Conn {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "pair")
	defer unix.Close(pair[0]) //nolint:errcheck // of the test
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{connectEnv + "=" + socket, "GORACE=atexit_sleep_ms=0"}
	cmd.Dir, cmd.Stderr, cmd.ExtraFiles = "/", os.Stderr, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	hold, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	t.Cleanup(func() {
		_ = hold.Close()
		_ = cmd.Wait()
	})
	var one [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(pair[0], one[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		t.Fatalf("no connection came: %v", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "connection")
	defer f.Close() //nolint:errcheck // net has a copy
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// stranger is a GET request of another user whose answer comes by and by.
type stranger struct {
	status int
	resp   *http.Response
	body   *bufio.Reader
}

func getAs(t *testing.T, socket string, uid uint32, path string) *stranger {
	t.Helper()
	c := connectAs(t, socket, uid)
	_ = c.SetDeadline(time.Now().Add(time.Minute)) // what hangs fails
	req, err := http.NewRequest("GET", "http://x"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(c); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		t.Fatal(err)
	}
	return &stranger{status: resp.StatusCode, resp: resp, body: bufio.NewReader(resp.Body)}
}

// next is the next line of the answer.
func (s *stranger) next(t *testing.T) string {
	t.Helper()
	line, err := s.body.ReadString('\n')
	if err != nil {
		t.Fatalf("the answer ends: %v, %s", err, s.trailer())
	}
	return line
}

// rest is everything until the answer ends.
func (s *stranger) rest(t *testing.T) string {
	t.Helper()
	b, err := io.ReadAll(s.body)
	if err != nil {
		t.Errorf("the answer does not end: %v", err)
	}
	return strings.TrimSpace(string(b))
}

// trailer is why a stream broke.
func (s *stranger) trailer() string { return s.resp.Trailer.Get(errorTrailer) }
