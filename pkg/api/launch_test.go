// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func pair(t *testing.T, typ int) (a, b *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	a, b = os.NewFile(uintptr(p[0]), "a"), os.NewFile(uintptr(p[1]), "b")
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// goodFiles are five descriptors that a server accepts.
func goodFiles(t *testing.T) (f *Files, out io.Reader, status *os.File) {
	r, w := pipe(t)
	mine, theirs := pair(t, unix.SOCK_SEQPACKET)
	null := open(t, os.DevNull, unix.O_RDWR)
	return &Files{Workspace: open(t, t.TempDir(), unix.O_PATH|unix.O_DIRECTORY), Stdio: [3]*os.File{null, w, null}, Status: theirs}, r, mine
}

func TestLaunchPassesDescriptors(t *testing.T) {
	b := newFake()
	b.onLaunch = func(_ context.Context, r *LaunchRequest, f *Files) (Session, error) {
		defer f.Close()
		_, _ = io.WriteString(f.Stdio[1], "out of "+r.Argv[0])
		_, _ = f.Status.Write([]byte("st"))
		var st unix.Stat_t
		if err := withFD(f.Workspace, func(fd int) error {
			fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if fl&unix.FD_CLOEXEC == 0 {
				return errors.New("no close-on-exec")
			}
			return unix.Fstat(fd, &st)
		}); err != nil {
			return nil, err
		}
		return fakeSession{id: "box", exit: Exit{Code: 3, Denials: 2}, done: ended()}, nil
	}
	c := NewClient(serve(t, b, Options{}))
	files, out, status := goodFiles(t)
	l, err := c.Launch(t.Context(), &LaunchRequest{Argv: []string{"prog"}, Profile: Document{Name: "default"}}, files)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck
	fr, err := l.Next()
	if err != nil || fr.Type != FrameEstablished || fr.ID != "box" {
		t.Fatalf("%+v %v", fr, err)
	}
	fr, err = l.Next()
	if err != nil || fr.Type != FrameExited || fr.Exit == nil || fr.Exit.Code != 3 {
		t.Fatalf("%+v %v", fr, err)
	}
	if _, err = l.Next(); err != io.EOF {
		t.Fatalf("after the end: %v", err)
	}
	buf := make([]byte, 64)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "out of prog" {
		t.Errorf("stdout: %q %v", buf[:n], err)
	}
	if n, err := status.Read(buf); err != nil || string(buf[:n]) != "st" {
		t.Errorf("status: %q %v", buf[:n], err)
	}
}

func TestLaunchFailureIsAFrame(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		code int
	}{
		"typed":        {&LaunchFailure{Code: 127, Message: "not found"}, 127},
		"odd code":     {&LaunchFailure{Code: 7, Message: "x", Missing: "landlock"}, 125},
		"other errors": {errors.New("boom"), 125},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFake()
			b.onLaunch = func(_ context.Context, _ *LaunchRequest, f *Files) (Session, error) {
				f.Close()
				return nil, tt.err
			}
			c := NewClient(serve(t, b, Options{}))
			files, _, _ := goodFiles(t)
			l, err := c.Launch(t.Context(), &LaunchRequest{Argv: []string{"x"}}, files)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck
			fr, err := l.Next()
			if err != nil || fr.Type != FrameFailed || fr.Failed == nil || fr.Failed.Code != tt.code {
				t.Fatalf("%+v %v", fr, err)
			}
		})
	}
}

// TestLaunchEndsWithItsClient checks both halves: before a sandbox is
// established the launch's context ends with the connection, afterwards only
// the waiting does.
func TestLaunchEndsWithItsClient(t *testing.T) {
	b := newFake()
	entered, left := make(chan struct{}), make(chan error, 1)
	b.onLaunch = func(ctx context.Context, _ *LaunchRequest, f *Files) (Session, error) {
		f.Close()
		close(entered)
		<-ctx.Done()
		left <- ctx.Err()
		return nil, ctx.Err()
	}
	c := NewClient(serve(t, b, Options{}))
	files, _, _ := goodFiles(t)
	l, err := c.Launch(t.Context(), &LaunchRequest{Argv: []string{"x"}}, files)
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	_ = l.Close()
	select {
	case <-left:
	case <-time.After(5 * time.Second):
		t.Fatal("the launch did not see its client go")
	}
}

func TestDescriptorsThatAreRefused(t *testing.T) {
	null := open(t, os.DevNull, unix.O_RDWR)
	ptmx := open(t, "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY)
	zero := open(t, "/dev/zero", unix.O_RDWR)
	proc := open(t, "/proc/self/status", unix.O_RDONLY)
	dir := open(t, t.TempDir(), unix.O_RDONLY)
	dirPath := open(t, t.TempDir(), unix.O_PATH|unix.O_DIRECTORY)
	filePath := open(t, "/etc/passwd", unix.O_PATH)
	stream, _ := pair(t, unix.SOCK_STREAM)
	seq, _ := pair(t, unix.SOCK_SEQPACKET)
	tests := []struct {
		name  string
		files Files
		why   string
	}{
		{"control", Files{dirPath, [3]*os.File{null, null, null}, seq}, ""},
		{"no workspace is allowed", Files{nil, [3]*os.File{null, null, null}, seq}, ""},
		{"a terminal", Files{nil, [3]*os.File{ptmx, null, null}, seq}, "device"},
		{"another device", Files{nil, [3]*os.File{null, zero, null}, seq}, "device"},
		{"a file of proc", Files{nil, [3]*os.File{proc, null, null}, seq}, "kernel file system"},
		{"a socket as stdout", Files{nil, [3]*os.File{null, stream, null}, seq}, "a socket"},
		{"a directory as stdin", Files{nil, [3]*os.File{dir, null, null}, seq}, "a directory"},
		{"O_PATH as stdin", Files{nil, [3]*os.File{filePath, null, null}, seq}, "O_PATH"},
		{"stdout missing", Files{nil, [3]*os.File{null, nil, null}, seq}, "stdout is missing"},
		{"status missing", Files{nil, [3]*os.File{null, null, null}, nil}, "status socket is missing"},
		{"status is a stream", Files{nil, [3]*os.File{null, null, null}, stream}, "SEQPACKET"},
		{"status is a file", Files{nil, [3]*os.File{null, null, null}, null}, "not a socket"},
		{"workspace is a file", Files{filePath, [3]*os.File{null, null, null}, seq}, "not a directory"},
		{"workspace is readable", Files{dir, [3]*os.File{null, null, null}, seq}, "O_PATH"},
	}
	c := NewClient(serve(t, newFake(), Options{}))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, err := c.Launch(t.Context(), &LaunchRequest{Argv: []string{"x"}}, &tt.files)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck
			fr, err := l.Next()
			if err != nil {
				t.Fatal(err)
			}
			if tt.why == "" {
				if fr.Type != FrameEstablished {
					t.Errorf("refused: %+v", fr.Failed)
				}
				return
			}
			if fr.Type != FrameFailed || !strings.Contains(fr.Failed.Message, tt.why) {
				t.Errorf("%+v, want a failure with %q", fr, tt.why)
			}
		})
	}
}

// TestHostileDescriptorMessages sends what no client of ours sends and looks
// for descriptors that stay open in the server, which is this process.
func TestHostileDescriptorMessages(t *testing.T) {
	null := open(t, os.DevNull, unix.O_RDWR)
	nfd := func(n int) []byte {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		return unix.UnixRights(fds...)
	}
	head := func(mask, count byte) []byte { return []byte{'R', 'F', 'F', 'D', 1, mask, 0, count} }
	tests := []struct {
		name string
		data []byte
		oob  []byte
	}{
		{"no descriptors", head(31, 5), nil},
		{"fewer than said", head(31, 5), nfd(4)},
		{"more than said", head(1, 1), nfd(2)},
		{"six", head(31, 5), nfd(6)},
		{"two hundred", head(31, 5), nfd(200)},
		{"mask and count differ", head(31, 4), nfd(4)},
		{"unknown bit", head(32, 1), nfd(1)},
		{"wrong magic", []byte("XXXX\x01\x1f\x00\x05"), nfd(5)},
		{"wrong version", []byte("RFFD\x02\x1f\x00\x05"), nfd(5)},
		{"short", []byte("RFF"), nfd(5)},
		{"long", append(head(31, 5), "more"...), nfd(5)},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), nil},
	}
	socket := serve(t, newFake(), Options{})
	attempt := func(data, oob []byte) Frame {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		body := `{"argv":["true"]}`
		_, _ = io.WriteString(c, "POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: ringfence-fds\r\nContent-Length: 17\r\n\r\n"+body)
		got := make([]byte, len(switching))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != switching {
			t.Fatalf("%q %v", got, err)
		}
		if _, _, err := c.WriteMsgUnix(data, oob, nil); err != nil {
			t.Fatal(err)
		}
		fr, err := ReadFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		return fr
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := openFDs(t)
			for range 3 {
				if fr := attempt(tt.data, tt.oob); fr.Type != FrameFailed || fr.Failed.Code != 125 {
					t.Fatalf("%+v", fr)
				}
			}
			for wait := 0; openFDs(t) > before; wait++ {
				if wait > 100 {
					t.Fatalf("%d descriptors open, %d before", openFDs(t), before)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
