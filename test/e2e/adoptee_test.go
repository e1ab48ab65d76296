// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/kernel"
)

// adopteeEnv makes the test binary the program that is adopted: one order per
// line on its input, one answer per line on its output.
const adopteeEnv = "RINGFENCE_TEST_ADOPTEE"

func TestMain(m *testing.M) {
	if os.Getenv(adopteeEnv) == "" {
		os.Exit(m.Run())
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			os.Exit(0)
		}
		text, err := o.obey()
		a := answer{Text: text}
		if err != nil {
			a.Err = err.Error()
		}
		_ = out.Encode(a)
	}
}

type order struct{ Op, Arg string }

type answer struct{ Text, Err string }

// patience bounds one order: a packet that is dropped shows as a timeout.
const patience = 4 * time.Second

var keptConns = map[string]net.Conn{}

func (o order) obey() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch o.Op {
	case "tcp": // connects and says whom the kernel names, and the first line
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Arg)
		if err != nil {
			return "", err
		}
		defer c.Close()
		line, err := readLine(c)
		return c.RemoteAddr().String() + " " + line, err
	case "keep":
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Arg)
		if err != nil {
			return "", err
		}
		keptConns[o.Arg] = c
		return readLine(c)
	case "kept": // is it alive?
		c := keptConns[o.Arg]
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "still\n"); err != nil {
			return "", err
		}
		return readLine(c)
	case "keep-unix":
		c, err := net.Dial("unix", o.Arg)
		if err == nil {
			keptConns[o.Arg] = c
		}
		return "", err
	case "drop":
		return "", keptConns[o.Arg].Close()
	case "leave": // its cgroup
		return "", os.WriteFile(filepath.Join(o.Arg, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	case "serve":
		return serveOn(o.Arg)
	case "unix":
		c, err := net.Dial("unix", o.Arg)
		if err == nil {
			c.Close()
		}
		return "", err
	case "udp":
		c, err := net.Dial("udp", o.Arg)
		if err != nil {
			return "", err
		}
		defer c.Close()
		_, err = io.WriteString(c, "x")
		return "", err
	case "ask-udp", "keep-udp", "kept-udp", "ask-udp-each":
		return o.askUDP()
	case "resolve":
		addrs, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, o.Arg)
		return fmt.Sprint(addrs), err
	case "get":
		return get(ctx, o.Arg)
	}
	return "", fmt.Errorf("unknown order %q", o.Op)
}

// serveOn answers whoever connects, and says where.
func serveOn(addr string) (string, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return "", err
	}
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			_, _ = io.WriteString(c, "served\n")
			c.Close()
		}
	}()
	return ln.Addr().String(), nil
}

func readLine(c net.Conn) (string, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == io.EOF && line != "" {
		err = nil
	}
	return line, err
}

func get(ctx context.Context, url string) (string, error) {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(os.Getenv("ROOTS"))
	if err == nil {
		pool.AppendCertsFromPEM(pem)
	}
	d := &net.Dialer{Resolver: &net.Resolver{PreferGo: true}}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprint(resp.StatusCode, " ", string(b)), err
}

// adoptee is a program that runs in a cgroup and a network namespace which
// Ringfence did not make.
type adoptee struct {
	t      *testing.T
	cgroup string
	cmd    *exec.Cmd
	in     *json.Encoder
	out    *json.Decoder
	end    func()
}

var adoptees atomic.Int32

func newCgroup(t *testing.T) string {
	t.Helper()
	root, err := kernel.CgroupRoot()
	need(t, err)
	path := filepath.Join(root, fmt.Sprintf("ringfence-adoptee-%d-%d", os.Getpid(), adoptees.Add(1)))
	need(t, os.Mkdir(path, 0o755))
	t.Cleanup(func() {
		for range 200 {
			if err := os.Remove(path); err == nil || os.IsNotExist(err) {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("left behind: cgroup %s", path)
	})
	return path
}

// startAdoptee starts the program in s without privileges; extra descriptors
// are inherited.
func startAdoptee(t *testing.T, w *world, s space, cgroup string, extra ...*os.File) *adoptee {
	t.Helper()
	return startAdopteeAs(t, w, s, cgroup, 65534, extra...)
}

func startAdopteeAs(t *testing.T, w *world, s space, cgroup string, uid uint32, extra ...*os.File) *adoptee {
	t.Helper()
	dir, err := os.Open(cgroup)
	need(t, err)
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{adopteeEnv + "=1", "ROOTS=" + w.roots, "GORACE=atexit_sleep_ms=0"}
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, extra
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	stdin, err := cmd.StdinPipe()
	need(t, err)
	stdout, err := cmd.StdoutPipe()
	need(t, err)
	s.do(func() { err = cmd.Start() })
	need(t, err)
	a := &adoptee{t: t, cgroup: cgroup, cmd: cmd, in: json.NewEncoder(stdin), out: json.NewDecoder(stdout)}
	var once sync.Once
	a.end = func() { once.Do(func() { stdin.Close(); _ = cmd.Wait() }) }
	t.Cleanup(a.end)
	return a
}

func (a *adoptee) do(op, arg string) (string, error) {
	a.t.Helper()
	if err := a.in.Encode(order{op, arg}); err != nil {
		a.t.Fatal(err)
	}
	var r answer
	if err := a.out.Decode(&r); err != nil {
		a.t.Fatalf("the adopted program: %v", err)
	}
	if r.Err != "" {
		return r.Text, fmt.Errorf("%s", r.Err)
	}
	return r.Text, nil
}

// must fails unless an order is obeyed; it returns the answer.
func (a *adoptee) must(op, arg string) string {
	a.t.Helper()
	text, err := a.do(op, arg)
	if err != nil {
		a.t.Fatalf("%s %s: %v", op, arg, err)
	}
	return text
}

// podAddr is where the pod is in the world.
const podAddr = "10.30.0.2"

// newPod makes a network namespace as a container has it: an interface of its
// own, and a default route to the world.
func (w *world) newPod(t *testing.T) space {
	t.Helper()
	return w.newPodAt(t, "10.30.0")
}

// newPodAt takes the first three numbers of the pod's network.
func (w *world) newPodAt(t *testing.T, network string) space {
	t.Helper()
	pod := newSpace(t)
	var ns int
	var err error
	pod.do(func() { ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	need(t, err)
	defer unix.Close(ns)
	w.far.do(func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "pod" + strings.ReplaceAll(network, ".", "-")
		if err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}); err == nil {
			err = up(attrs.Name, network+".1/16")
		}
	})
	need(t, err)
	pod.do(func() {
		if err = up("eth0", network+".2/16"); err != nil {
			return
		}
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		err = netlink.RouteAdd(&netlink.Route{Dst: all, Gw: net.ParseIP(network + ".1")})
	})
	need(t, err)
	return pod
}

// greeter answers each connection with who it comes from, and then each line.
func (w *world) greeter(t *testing.T, addr string) string {
	t.Helper()
	return w.answer(t, addr, func(c net.Conn) {
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "from %s\n", host)
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			fmt.Fprintf(c, "%s\n", lines.Text())
		}
	})
}
