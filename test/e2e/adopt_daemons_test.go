// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// startDocker runs a Docker daemon of the test's own, without its networks, and
// a container of it. Docker names the cgroup.
func startDocker(c *containerWorld, parent string) (string, *exec.Cmd, func()) {
	in := func(name string) string { return filepath.Join(c.dir, name) }
	script := `
dockerd --data-root "$1/data" --exec-root "$1/exec" -H "unix://$1/sock" --pidfile "$1/pid" --iptables=false --ip6tables=false \
	--bridge=none --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs </dev/null >"$1/log" 2>&1 &
for i in $(seq 600); do docker -H "unix://$1/sock" version >/dev/null 2>&1 && break; sleep 0.1; done
tar -C "$1/root" -c . | docker -H "unix://$1/sock" import - box >/dev/null || { tail -n 5 "$1/log" >&2; exit 1; }
dir=$1; shift
exec docker -H "unix://$dir/sock" run -i --name web --network host --cidfile "$dir/id" "$@" box /adoptee`
	args := []string{"-c", script, "sh", c.dir, "--cgroup-parent", filepath.Join(parent, "docker"), "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"}
	for to, from := range c.binds() {
		args = append(args, "-v", from+":"+to+":ro")
	}
	for _, e := range adopteeEnviron {
		args = append(args, "-e", e)
	}
	return in("id"), c.command("sh", args...), func() {
		if out, err := exec.Command("docker", "-H", "unix://"+in("sock"), "rm", "-f", "web").CombinedOutput(); err != nil {
			c.Errorf("docker rm: %v %s", err, out)
		}
		c.stop(in("pid"))
	}
}

// startContainerd runs a containerd of the test's own and, with its tool, a
// container in the cgroup that containerd gives by itself: its namespace, then
// the id.
func startContainerd(c *containerWorld, parent string) (string, *exec.Cmd, func()) {
	in := func(name string) string { return filepath.Join(c.dir, name) }
	config := "version = 2\nroot = \"" + in("data") + "\"\nstate = \"" + in("exec") + "\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"" + in("sock") + "\"\n"
	need(c.T, os.WriteFile(in("config.toml"), []byte(config), 0o600))
	id := randomID(c.T)
	script := `
containerd --config "$1/config.toml" </dev/null >"$1/log" 2>&1 &
echo $! >"$1/pid"
for i in $(seq 600); do ctr -a "$1/sock" version >/dev/null 2>&1 && break; sleep 0.1; done
dir=$1; shift
ctr -a "$dir/sock" run --rm --net-host --cpu-shares 0 --rootfs "$@" || { tail -n 5 "$dir/log" >&2; exit 1; }`
	args := []string{"-c", script, "sh", c.dir, "--cgroup", filepath.Join(parent, "default", id)}
	for to, from := range c.binds() {
		args = append(args, "--mount", "type=bind,src="+from+",dst="+to+",options=rbind:ro")
	}
	for _, e := range adopteeEnviron {
		args = append(args, "--env", e)
	}
	args = append(args, c.root(""), id, "/adoptee")
	return id, c.command("sh", args...), func() { c.stop(in("pid")) }
}

// stop ends a daemon and waits until it is gone.
func (c *containerWorld) stop(pidFile string) {
	b, err := os.ReadFile(pidFile)
	need(c.T, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	need(c.T, err)
	need(c.T, syscall.Kill(pid, syscall.SIGTERM))
	eventually(c.T, "the end of the runtime's daemon", func() bool {
		_, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe") // of a process that only waits to be reaped neither
		return err != nil
	})
}
