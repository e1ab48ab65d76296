// SPDX-License-Identifier: Apache-2.0

// Package deploy tests what `make install` puts on a machine: that it is whole,
// that the daemon can live with what the unit takes from it, and that nothing
// of the unit would take the fence away from sandboxes that outlive it.
package deploy

import (
	"bufio"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/daemon"
	"github.com/ringfence/ringfence/test/env"
	"github.com/ringfence/ringfence/test/node"
)

// install runs tools/install.sh below dest.
func install(t *testing.T, verb, dest, bin string, more ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(node.Root(), "tools", "install.sh"), verb)
	cmd.Env = append(append(os.Environ(), "DESTDIR="+dest, "BIN="+bin), more...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return string(out)
}

// files lists the regular files below dir, with their modes.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		out = append(out, info.Mode().String()+" "+strings.TrimPrefix(p, dir))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// programs stands for what was built: the tool is asked for its completions.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ringfence", "ringfence-policy", "ringfenced", "ringfence-init"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho \"# $*\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInstall(t *testing.T) {
	bin, dest := programs(t), t.TempDir()
	install(t, "install", dest, bin)
	want := []string{
		"-rw-r--r-- /etc/ringfence/ringfenced.yaml",
		"-rwxr-xr-x /usr/local/bin/ringfence", "-rwxr-xr-x /usr/local/bin/ringfence-init", "-rwxr-xr-x /usr/local/bin/ringfence-policy", "-rwxr-xr-x /usr/local/bin/ringfenced",
		"-rw-r--r-- /usr/local/lib/systemd/system/ringfenced.service",
		"-rw-r--r-- /usr/local/share/bash-completion/completions/ringfence",
		"-rw-r--r-- /usr/local/share/fish/vendor_completions.d/ringfence.fish",
		"-rw-r--r-- /usr/local/share/zsh/site-functions/_ringfence",
	}
	if got := files(t, dest); !slices.Equal(got, want) {
		t.Errorf("installed:\n%s", strings.Join(got, "\n"))
	}
	// A second one keeps what the operator wrote and replaces the rest.
	config := filepath.Join(dest, "etc/ringfence/ringfenced.yaml")
	if err := os.WriteFile(config, []byte("group: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	install(t, "install", dest, bin)
	if b, err := os.ReadFile(config); err != nil || string(b) != "group: mine\n" {
		t.Errorf("the configuration is %q now, %v", b, err)
	}
	install(t, "uninstall", dest, bin)
	if got := files(t, dest); !slices.Equal(got, []string{"-rw-r--r-- /etc/ringfence/ringfenced.yaml"}) {
		t.Errorf("left after uninstall:\n%s", strings.Join(got, "\n"))
	}
}

// Other places are named in the unit and in the configuration.
func TestInstallElsewhere(t *testing.T) {
	bin, dest := programs(t), t.TempDir()
	install(t, "install", dest, bin, "PREFIX=/opt/rf", "ETC=/opt/rf/etc", "UNITDIR=/etc/systemd/system")
	u := readUnit(t, filepath.Join(dest, "etc/systemd/system/ringfenced.service"))
	if got := u["ExecStart"]; !slices.Equal(got, []string{"/opt/rf/bin/ringfenced --config /opt/rf/etc/ringfenced.yaml"}) {
		t.Errorf("ExecStart=%v", got)
	}
	cfg := daemon.Default()
	if err := cfg.ReadConfig(filepath.Join(dest, "opt/rf/etc/ringfenced.yaml")); err != nil {
		t.Fatal(err)
	}
	if cfg.PolicyDir != "/opt/rf/etc/policy" || cfg.ProfileDir != "/opt/rf/etc/profiles" {
		t.Errorf("%s, %s", cfg.PolicyDir, cfg.ProfileDir)
	}
}

// The installed configuration changes nothing, and what it shows commented out
// are the defaults.
func TestTheInstalledConfigurationIsTheDefault(t *testing.T) {
	path := filepath.Join(node.Root(), "deploy", "ringfenced.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var open strings.Builder
	_, body, _ := strings.Cut(string(b), "\n\n")
	for line := range strings.Lines(body) {
		open.WriteString(strings.TrimPrefix(line, "# "))
	}
	shown := filepath.Join(t.TempDir(), "shown.yaml")
	if err := os.WriteFile(shown, []byte(open.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, shown} {
		cfg, want := daemon.Default(), daemon.Default()
		if err := errors.Join(cfg.ReadConfig(p), cfg.Complete("/usr/local/bin/ringfenced"), want.Complete("/usr/local/bin/ringfenced")); err != nil {
			t.Fatal(err)
		}
		cfg.Gateway.Resolvers = nil // none and an empty list are the same
		if got, w := asText(cfg), asText(want); got != w {
			t.Errorf("%s makes\n%s, the default is\n%s", p, got, w)
		}
	}
}

// unit is what a unit file says, each directive with its values in order.
type unit map[string][]string

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	u := unit{}
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if k, v, ok := strings.Cut(sc.Text(), "="); ok && !strings.HasPrefix(k, "#") {
			u[k] = append(u[k], v)
		}
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
	return u
}

func ours(t *testing.T) unit {
	return readUnit(t, filepath.Join(node.Root(), "deploy", "ringfenced.service"))
}

// Each of these would take something from sandboxes: the unit file says what.
func TestTheUnitTakesNothingFromSandboxes(t *testing.T) {
	u := ours(t)
	for k, want := range map[string]string{"Type": "notify", "KillMode": "process", "UMask": "0022", "RestartPreventExitStatus": "2"} {
		if got := u[k]; len(got) != 1 || got[0] != want {
			t.Errorf("%s=%v, not %s", k, got, want)
		}
	}
	for _, k := range []string{
		"RuntimeDirectory", "StateDirectory", "ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "PrivateMounts", "ProtectKernelTunables",
		"ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups", "ProtectProc", "ProcSubset", "ReadWritePaths", "ReadOnlyPaths",
		"InaccessiblePaths", "BindPaths", "TemporaryFileSystem", "RootDirectory", "DynamicUser", "PrivateNetwork", "PrivateUsers", "PrivateIPC",
		"SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
		"LockPersonality", "ProtectHostname", "ProtectClock", "MemoryDenyWriteExecute", "IPAddressDeny", "SocketBindDeny",
		"RestrictNetworkInterfaces", "OOMScoreAdjust", "ExecStopPost",
	} {
		if v, there := u[k]; there {
			t.Errorf("%s=%v: see the end of the unit file", k, v)
		}
	}
}

// What systemd itself says of the file.
func TestSystemdKnowsEveryDirective(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze (systemd)")
	}
	verify := func(edit func(string) string) string {
		b, err := os.ReadFile(filepath.Join(node.Root(), "deploy", "ringfenced.service"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "ringfenced.service")
		text := strings.Replace(string(b), "/usr/local/bin/ringfenced", "/bin/true", 1)
		if err := os.WriteFile(path, []byte(edit(text)), 0o644); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command(tool, "verify", "--man=no", path).CombinedOutput() // what it says counts
		var about []string
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "ringfenced.service") {
				about = append(about, line)
			}
		}
		return strings.Join(about, "")
	}
	if said := verify(func(s string) string { return s }); said != "" {
		t.Error(said)
	}
	if said := verify(func(s string) string { return strings.Replace(s, "KillMode=", "KillMood=", 1) }); said == "" {
		t.Error("control: a directive that does not exist is not noticed")
	}
}

// The daemon starts, runs sandboxes, is restarted and stops with no more than
// the capabilities of the unit and without ways to gain others.
func TestTheDaemonLivesWithWhatTheUnitLeaves(t *testing.T) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("needs setpriv (util-linux)")
	}
	var caps []string
	for _, v := range ours(t)["CapabilityBoundingSet"] {
		for c := range strings.FieldsSeq(v) {
			caps = append(caps, "+"+strings.ToLower(strings.TrimPrefix(c, "CAP_")))
		}
	}
	limited := func(caps []string) []string {
		set := strings.Join(append([]string{"-all"}, caps...), ",")
		return []string{setpriv, "--no-new-privs", "--bounding-set", set, "--inh-caps", "-all"}
	}
	n := node.Start(t, node.Options{Wrap: limited(caps)})
	run := func() {
		t.Helper()
		ws := n.Workspace(t)
		if r := n.CLIIn(t, ws, "run", "--profile", "coding", "--", "sh", "-c", "echo in > f && cat f && ! touch /etc/x"); r.Code != 0 || !strings.Contains(r.Stdout, "in") {
			t.Errorf("run: %d %s %s", r.Code, r.Stdout, r.Stderr)
		}
	}
	run()
	ws := n.Workspace(t)
	if r := n.CLIIn(t, ws, "run", "--detach", "--name", "stays", "--", "sleep", "1000"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	n.StopDaemon(t, syscall.SIGTERM)
	n.StartDaemon(t)
	if r := n.CLI(t, "exec", "stays", "--", "true"); r.Code != 0 {
		t.Errorf("exec in the adopted sandbox: %d %s", r.Code, r.Stderr)
	}
	run()
	if r := n.CLI(t, "stop", "stays"); r.Code != 0 {
		t.Errorf("stop: %d %s", r.Code, r.Stderr)
	}
	t.Run("control: without one of them it does not start", func(t *testing.T) {
		without := slices.DeleteFunc(slices.Clone(caps), func(c string) bool { return c == "+bpf" || c == "+sys_admin" })
		n := node.Start(t, node.Options{Wrap: limited(without), NoStart: true})
		if code, said := n.Refused(t); code == 0 {
			t.Errorf("it ran without CAP_BPF and CAP_SYS_ADMIN: %s", said)
		}
		n.Wrap = nil // for the one that cleans up
	})
}

// The daemon says READY when it serves, and STOPPING when it does not any more.
func TestTheDaemonTellsItsSupervisor(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	said := func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := l.SetReadDeadline(time.Now().Add(env.Wait(60 * time.Second))); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	n := node.Start(t, node.Options{NoStart: true})
	n.Launch(t, "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	if s := said(); s != "READY=1" {
		t.Errorf("first it said %q", s)
	}
	if r := n.CLI(t, "ps"); r.Code != 0 {
		t.Errorf("ready, and ps says %d %s", r.Code, r.Stderr)
	}
	n.StopDaemon(t, syscall.SIGTERM)
	if s := said(); s != "STOPPING=1" {
		t.Errorf("then it said %q", s)
	}
}

func asText(c daemon.Config) string {
	b, err := yaml.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}
