// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringfence/ringfence/test/bench/job"
)

// nginx is a reverse proxy that does for tls.bench and web.bench what the
// gateway does: it judges method and path, keeps connections to the server,
// verifies its certificate, buffers nothing on disk and writes a log line for
// each request.
type nginx struct {
	plain, tls string // where it listens
	workers    []int
}

const nginxConf = `
worker_processes auto;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log access.log combined buffer=64k flush=1s;
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  tcp_nodelay on;
  keepalive_requests 1000000;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_max_temp_file_size 0;
  proxy_buffers 16 32k;
  proxy_buffer_size 32k;
  proxy_busy_buffers_size 64k;
  upstream plain { server %[1]s; keepalive 64; keepalive_requests 1000000; }
  upstream tls { server %[2]s; keepalive 64; keepalive_requests 1000000; }
  server {
    listen %[3]s;
    server_name web.bench;
    location /data/ { limit_except GET { deny all; } proxy_pass http://plain; }
    location / { return 403; }
  }
  server {
    listen %[4]s ssl;
    server_name tls.bench;
    ssl_certificate %[5]s;
    ssl_certificate_key %[6]s;
    ssl_protocols TLSv1.3;
    ssl_prefer_server_ciphers off;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_name tls.bench;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %[7]s;
    location /data/ { limit_except GET { deny all; } proxy_pass https://tls; }
    location / { return 403; }
  }
}
`

// startNginx runs nginx with a worker for each CPU.
func (t *testbed) startNginx(b *testing.B) *nginx {
	b.Helper()
	n := &nginx{plain: freeAddr(b), tls: freeAddr(b)}
	cert, key := t.leafFiles(b, "tls.bench")
	n.workers = runNginx(b, fmt.Sprintf(nginxConf, t.plain, t.tls, n.plain, n.tls, cert, key, t.roots), runtime.NumCPU())
	return n
}

// nginxPath is where nginx is; ok is false where it is not installed.
func nginxPath() (path string, ok bool) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx"
		err = exec.Command(path, "-v").Run()
	}
	return path, err == nil
}

// runNginx runs nginx until the benchmark ends, and gives its workers.
func runNginx(b *testing.B, conf string, most int) (workers []int) {
	b.Helper()
	path, ok := nginxPath()
	if !ok {
		b.Skip("nginx is not installed (make deps-bench)")
	}
	dir := b.TempDir()
	need(b, os.Chmod(dir, 0o755)) // the workers are another user
	file := filepath.Join(dir, "nginx.conf")
	need(b, os.WriteFile(file, []byte(conf), 0o644))
	cmd := ownSession(exec.Command(path, "-p", dir, "-c", file, "-g", "daemon off;"))
	cmd.Stderr = os.Stderr
	need(b, cmd.Start())
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			b.Errorf("nginx: %v", err)
		}
	})
	for start := time.Now(); len(workers) < most; time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			b.Fatal("nginx has no workers")
		}
		workers = childrenOf(b, cmd.Process.Pid)
	}
	return workers
}

func childrenOf(b *testing.B, pid int) (pids []int) {
	b.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	need(b, err)
	for f := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(f)
		need(b, err)
		pids = append(pids, pid)
	}
	return pids
}

// freeAddr is an address that nobody listens on; nginx opens its own sockets.
func freeAddr(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	need(b, err)
	defer ln.Close() //nolint:errcheck // it was only for the number
	return ln.Addr().String()
}

// comparison is the same job straight to the server, through nginx and through
// the gateway, in turns.
type comparison struct {
	t               *testbed
	nginx           *nginx
	gateway, keeper int
}

func newComparison(b *testing.B) *comparison {
	b.Helper()
	t := newTestbed(b)
	return &comparison{t: t, nginx: t.startNginx(b), gateway: t.gateway(b), keeper: t.keeper(b)}
}

// run reports what figure says of each result as unit, and CPU time by the
// number of things that a result counts.
func (c *comparison) run(b *testing.B, j job.Job, server, proxy, unit string, figure func(job.Result) (value, things float64)) {
	r, ciphers := rounds{}, map[string]string{}
	way := func(name string, w *worker, dial, roots string, pids map[string][]int) {
		before := map[string]time.Duration{}
		for who, ps := range pids {
			before[who] = cpuTimes(b, ps)
		}
		j.Dial, j.Roots = dial, roots
		got := w.do(b, j)
		ciphers[name] = got.Cipher
		value, things := figure(got)
		r.add(name+"-"+unit, value)
		for who, ps := range pids {
			r.add(who+"-cpu-µs", float64((cpuTimes(b, ps)-before[who]).Nanoseconds())/1000/things)
		}
	}
	round := func() {
		way("direct", c.t.outside, server, c.t.roots, nil)
		way("nginx", c.t.outside, proxy, c.t.roots, map[string][]int{"nginx": c.nginx.workers})
		way("gateway", c.t.inside, "", "", map[string][]int{"gateway": {c.gateway}, "keeper": {c.keeper}})
	}
	round() // opens the connections and warms everything
	if ciphers["nginx"] != ciphers["gateway"] {
		b.Fatalf("not the same work: %v", ciphers)
	}
	r = rounds{}
	for b.Loop() {
		round()
		r.ratio("gateway-to-nginx", "gateway-"+unit, "nginx-"+unit)
		r.ratio("cpu-to-nginx", "gateway-cpu-µs", "nginx-cpu-µs")
	}
	r.report(b)
}

// BenchmarkDownload compares downloads through the gateway, which judges and
// records them, with the same through nginx: in clear, and with TLS terminated
// and TLS again to the server.
func BenchmarkDownload(b *testing.B) {
	c := newComparison(b)
	const size, conns = 128 << 20, 2
	figure := func(r job.Result) (float64, float64) { return r.Gbit, float64(r.Bytes >> 20) }
	path := fmt.Sprintf("/data/bytes/%d", size)
	b.Run("inspected", func(b *testing.B) {
		c.run(b, job.Job{Kind: job.Ask, URL: "http://web.bench:" + port(c.t.plain) + path, N: 2 * conns, Conns: conns}, c.t.plain, c.nginx.plain, "Gbit", figure)
	})
	b.Run("tls-terminated", func(b *testing.B) {
		c.run(b, job.Job{Kind: job.Ask, URL: "https://tls.bench:" + port(c.t.tls) + path, N: conns, Conns: conns}, c.t.tls, c.nginx.tls, "Gbit", figure)
	})
}

// BenchmarkRequests compares small requests on 16 connections that are kept,
// through the gateway and through nginx.
func BenchmarkRequests(b *testing.B) {
	c := newComparison(b)
	figure := func(r job.Result) (float64, float64) { return r.PerSec, 4000 }
	b.Run("inspected", func(b *testing.B) {
		c.run(b, job.Job{Kind: job.Ask, URL: "http://web.bench:" + port(c.t.plain) + "/data/1", N: 4000, Conns: 16}, c.t.plain, c.nginx.plain, "per-s", figure)
	})
	b.Run("tls-terminated", func(b *testing.B) {
		c.run(b, job.Job{Kind: job.Ask, URL: "https://tls.bench:" + port(c.t.tls) + "/data/1", N: 4000, Conns: 16}, c.t.tls, c.nginx.tls, "per-s", figure)
	})
}
