// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/kernel"
)

// engine starts containers as somebody's own tools do, beside Ringfence.
type engine struct {
	program string
	extra   bool // tools/deps.sh does not install it: it is large
	// start runs the adoptee in a container of the given cgroup (as cgroupsPath
	// has it) and returns the container's id, and how it is ended.
	start func(c *containerWorld, parent string) (id string, cmd *exec.Cmd, end func())
}

// containerWorld is what a container is made of: a root with this test's binary
// and the machine's libraries.
type containerWorld struct {
	*testing.T
	dir, roots string
}

func newContainerWorld(t *testing.T, roots string) *containerWorld {
	t.Helper()
	dir, err := os.MkdirTemp("", "ct") // short: Podman wants its paths below 50 characters
	need(t, err)
	t.Cleanup(func() { need(t, os.RemoveAll(dir)) })
	c := &containerWorld{t, dir, roots}
	need(t, os.MkdirAll(c.root("etc"), 0o755))
	need(t, os.MkdirAll(c.root("usr"), 0o755))
	for _, link := range []string{"lib", "lib64", "bin"} { // a merged /usr, as Debian has it since 12
		need(t, os.Symlink("usr/"+link, c.root(link)))
	}
	return c
}

func (c *containerWorld) root(name string) string { return filepath.Join(c.dir, "root", name) }

// binds are what the container sees of the machine, read-only.
func (c *containerWorld) binds() map[string]string {
	self, err := os.Executable()
	need(c.T, err)
	return map[string]string{"/usr": "/usr", "/adoptee": self, "/roots.pem": c.roots}
}

var adopteeEnviron = []string{adopteeEnv + "=1", "ROOTS=/roots.pem", "GORACE=atexit_sleep_ms=0"}

// command runs a program to which cgroup v2 is all there is of cgroups, at the
// place where runtimes look for it: with controllers of v1 beside it some refuse
// to work.
func (c *containerWorld) command(program string, args ...string) *exec.Cmd {
	root, err := kernel.CgroupRoot()
	need(c.T, err)
	if root == "/sys/fs/cgroup" {
		return exec.Command(program, args...)
	}
	return exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", `mount --bind "$0" /sys/fs/cgroup && exec "$@"`, root, program}, args...)...)
}

// runc is driven as Docker's cgroupfs driver drives it: the container's cgroup
// has its id for a name, in one called docker.
func startRunc(c *containerWorld, parent string) (string, *exec.Cmd, func()) {
	id := randomID(c.T)
	spec := exec.Command("runc", "spec", "--bundle", c.dir)
	if out, err := spec.CombinedOutput(); err != nil {
		c.Fatalf("runc spec: %v %s", err, out)
	}
	file := filepath.Join(c.dir, "config.json")
	b, err := os.ReadFile(file)
	need(c.T, err)
	var config map[string]any
	need(c.T, json.Unmarshal(b, &config))
	process, linux := config["process"].(map[string]any), config["linux"].(map[string]any)
	process["terminal"], process["args"], process["env"] = false, []string{"/adoptee"}, adopteeEnviron
	delete(process, "rlimits") // more than this machine may give
	config["root"] = map[string]any{"path": c.root(""), "readonly": false}
	for to, from := range c.binds() {
		config["mounts"] = append(config["mounts"].([]any), map[string]any{"destination": to, "source": from, "type": "bind", "options": []string{"bind", "ro"}})
	}
	config["mounts"] = append(config["mounts"].([]any), map[string]any{"destination": "/etc/resolv.conf", "source": "/etc/resolv.conf", "type": "bind", "options": []string{"bind", "ro"}})
	linux["cgroupsPath"] = filepath.Join(parent, "docker", id)
	linux["resources"] = map[string]any{}
	linux["namespaces"] = slices.DeleteFunc(linux["namespaces"].([]any), func(n any) bool { return n.(map[string]any)["type"] == "network" }) // the caller's
	b, err = json.Marshal(config)
	need(c.T, err)
	need(c.T, os.WriteFile(file, b, 0o600))
	state := filepath.Join(c.dir, "state")
	cmd := c.command("runc", "--root", state, "run", "--bundle", c.dir, id)
	return id, cmd, func() { _ = c.command("runc", "--root", state, "delete", "--force", id).Run() }
}

func randomID(t *testing.T) string {
	t.Helper()
	b := make([]byte, 32)
	_, err := rand.Read(b)
	need(t, err)
	return hex.EncodeToString(b)
}

// Podman names and makes everything itself.
func startPodman(c *containerWorld, parent string) (string, *exec.Cmd, func()) {
	conf := filepath.Join(c.dir, "containers.conf")
	need(c.T, os.WriteFile(conf, []byte("[engine]\nlock_type = \"file\"\n"), 0o600))
	podman := func(args ...string) *exec.Cmd {
		in := func(name string) string { return filepath.Join(c.dir, name) }
		cmd := c.command("podman", append([]string{"--root", in("storage"), "--runroot", in("run"), "--tmpdir", in("tmp"), "--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "runc"}, args...)...)
		cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+conf)
		return cmd
	}
	args := []string{"run", "-i", "--name", "web", "--network", "host", "--cgroup-parent", parent, "--cgroups", "no-conmon",
		"--pids-limit=-1", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"} // this machine has no controller pids, and may not give more
	for to, from := range c.binds() {
		args = append(args, "-v", from+":"+to+":ro")
	}
	for _, e := range adopteeEnviron {
		args = append(args, "-e", e)
	}
	idFile := filepath.Join(c.dir, "id")
	args = append(args, "--cidfile", idFile, "--rootfs", c.root(""), "/adoptee")
	cmd := podman(args...)
	return idFile, cmd, func() {
		if out, err := podman("rm", "-f", "-t", "0", "web").CombinedOutput(); err != nil {
			c.Errorf("podman rm: %v %s", err, out)
		}
	}
}

// keepControllers undoes what a runtime enables for the whole machine.
func keepControllers(t *testing.T) {
	t.Helper()
	root, err := kernel.CgroupRoot()
	need(t, err)
	file := filepath.Join(root, "cgroup.subtree_control")
	before, err := os.ReadFile(file)
	need(t, err)
	t.Cleanup(func() {
		now, err := os.ReadFile(file)
		need(t, err)
		for _, c := range strings.Fields(string(now)) {
			if !slices.Contains(strings.Fields(string(before)), c) {
				need(t, os.WriteFile(file, []byte("-"+c), 0))
			}
		}
	})
}

// container starts one and ends it and its cgroups with the test.
func (r *engine) container(t *testing.T, w *world, s space) (*adoptee, string) {
	t.Helper()
	if _, err := exec.LookPath(r.program); err != nil {
		if !r.extra {
			missing(t, r.program)
		}
		t.Skipf("not installed: %s (tools/deps.sh leaves it out)", r.program)
	}
	keepControllers(t)
	root, err := kernel.CgroupRoot()
	need(t, err)
	parent := newCgroup(t)
	t.Cleanup(func() { // deepest first; what is left above is the runtime's
		var dirs []string
		_ = filepath.WalkDir(parent, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() && p != parent {
				dirs = append(dirs, p)
			}
			return nil
		})
		slices.Reverse(dirs)
		for _, d := range dirs {
			eventually(t, "the container's cgroup can be removed", func() bool { err := os.Remove(d); return err == nil || os.IsNotExist(err) })
		}
	})
	c := newContainerWorld(t, w.roots)
	id, cmd, end := r.start(c, strings.TrimPrefix(parent, root))
	a := &adoptee{t: t, cmd: cmd}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	need(t, err)
	stdout, err := cmd.StdoutPipe()
	need(t, err)
	s.do(func() { err = cmd.Start() })
	need(t, err)
	a.in, a.out = json.NewEncoder(stdin), json.NewDecoder(stdout)
	var once sync.Once
	a.end = func() { once.Do(func() { stdin.Close(); _ = cmd.Wait(); end() }) }
	t.Cleanup(a.end)
	a.must("resolve", "127.0.0.1")  // it runs
	if strings.HasPrefix(id, "/") { // the runtime has chosen it
		b, err := os.ReadFile(id)
		need(t, err)
		id = strings.TrimSpace(string(b))
	}
	return a, id
}

// A real container, by a real runtime: adopted by its id, judged, released.
func TestAdoptRealContainer(t *testing.T) {
	for _, r := range []engine{{"runc", false, startRunc}, {"podman", true, startPodman}, {"dockerd", true, startDocker}, {"containerd", true, startContainerd}} {
		t.Run(r.program, func(t *testing.T) {
			w := newAdopted(t)
			w.a.end()
			a, id := r.container(t, w.world, w.newPodAt(t, "10.31.0"))
			w.a = a
			const from = "from 10.31.0.2"
			w.gives(t, "tcp", w.other, from) // controls
			w.gives(t, "tcp", w.db, from)
			w.gives(t, "udp", w.other, "")
			if res := w.n.CLI(t, "adopt", "--container", id[:12], "--as", "org:acme/team:web/agent:shop", "--name", "shop"); res.Code != 0 {
				t.Fatalf("adopt: %s", res.Stderr)
			}
			w.denied(t, "tcp", w.other)
			w.denied(t, "udp", w.other)
			w.denied(t, "tcp", "127.0.0.1:1")
			w.gives(t, "tcp", w.db, w.db+" from 10.20.0.2") // through the gateway
			w.gives(t, "get", "https://web.test/", "200 web")
			if addrs, err := w.a.do("resolve", "other.test"); err == nil {
				t.Errorf("a name that policy does not know resolves to %s", addrs)
			}
			w.n.WaitEvent(t, "the denial under the scope", func(e *event.Event) bool {
				return e.Verdict == event.Denied && e.DstAddr == w.other && strings.HasPrefix(e.Scope, "org:acme/team:web/agent:shop")
			})
			s := w.n.Sandbox(t, "shop")
			for _, p := range s.Parts {
				if p.Name == "cgroup" { // its hierarchy is mounted read-only
					t.Errorf("the container may leave its cgroup: %s", p.Detail)
				}
			}
			if res := w.n.CLI(t, "release", "shop"); res.Code != 0 {
				t.Fatalf("release: %s", res.Stderr)
			}
			w.gives(t, "tcp", w.other, from)
		})
	}
}
