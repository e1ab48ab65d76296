// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// bundlePaths are where TLS libraries look for the system's roots.
var bundlePaths = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
	"/etc/ssl/cert.pem",                  // OpenSSL's default file, Alpine, BSDs
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
	"/etc/pki/tls/cert.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
	"/etc/ca-certificates/extracted/tls-ca-bundle.pem", // Arch
	"/etc/ssl/ca-bundle.pem",                           // SUSE
	"/var/lib/ca-certificates/ca-bundle.pem",
	"/usr/lib/ssl/cert.pem",
	"/usr/share/pki/ca-trust-legacy/ca-bundle.legacy.default.crt",
}

// javaPaths are where Java runtimes look for their truststore; patterns.
var javaPaths = []string{
	"/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts",
	"/usr/lib/jvm/*/lib/security/cacerts", "/usr/lib/jvm/*/jre/lib/security/cacerts",
	"/opt/*/lib/security/cacerts", "/opt/java/*/lib/security/cacerts",
}

// caVariables point programs that bring their own roots at the bundle.
var caVariables = []string{
	"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE", "PIP_CERT",
	"CARGO_HTTP_CAINFO", "NIX_SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "DENO_CERT",
}

// planOwnFiles adds the files with which the sandbox describes itself.
func (pl *planner) planOwnFiles() error {
	// The host's own /etc/ringfence is the operator's, not the agent's: a file
	// system of ours covers it.
	pl.etcDir(ownDir)
	pl.mount(Mount{Kind: MountTmpfs, Target: ownDir, Mode: 0o755, ReadOnly: true})
	pl.files[ownDir] = true
	passwd, group := accounts(pl.in.Identity)
	hostname := pl.in.Walls.Hostname
	if hostname == "" {
		hostname = "ringfence"
	}
	resolver := pl.in.Resolver
	if resolver == "" {
		resolver = "127.0.0.53"
	}
	for _, f := range []struct{ path, data string }{
		{"/etc/passwd", passwd},
		{"/etc/group", group},
		{"/etc/hostname", hostname + "\n"},
		{"/etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost\n127.0.1.1 " + hostname + "\n"},
		{"/etc/resolv.conf", "nameserver " + resolver + "\noptions timeout:1 attempts:5\n"},
		{"/etc/nsswitch.conf", nsswitch},
	} {
		pl.ownFile(f.path, f.data)
	}
	if len(pl.in.CACert) > 0 {
		pl.ownFile(CAFile, string(pl.in.CACert))
	}
	if len(pl.in.CABundle) > 0 {
		if err := pl.planBundle(); err != nil {
			return err
		}
	}
	if len(pl.in.JavaStore) > 0 {
		return pl.planJava()
	}
	return nil
}

const nsswitch = `passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
`

func (pl *planner) ownFile(p, data string) {
	if pl.isGuarded(p) {
		return // the profile wants a decoy there
	}
	pl.etcDir(path.Dir(p))
	pl.files[p] = true
	pl.mount(Mount{Kind: MountFile, Target: p, Mode: 0o644, Data: data})
}

// etcDir makes a directory on the upper side of the overlay, which the lower
// side may lack. Where it exists it keeps its mode: the upper side's would
// replace it.
func (pl *planner) etcDir(dir string) {
	if dir == "/etc" || !under(dir, "/etc") || pl.seen[dir] {
		return
	}
	pl.seen[dir] = true
	pl.etcDir(path.Dir(dir))
	var mode uint32 = 0o755
	if a := pl.area(dir); a.kind == regionOverlay && dir != ownDir {
		if st, err := statBeneath(a.host, strings.TrimPrefix(dir, a.at)); err == nil {
			mode = st.Mode & 0o777
		}
	}
	pl.mount(Mount{Kind: MountDir, Target: dir, Mode: mode})
}

// planBundle shows one copy of the bundle and links every known place to it.
func (pl *planner) planBundle() error {
	if err := pl.blob(BundleFile, pl.in.CABundle); err != nil {
		return err
	}
	for i, p := range bundlePaths {
		at, ok := pl.resolveShown(p)
		if !ok && i < 2 {
			at, ok = pl.linkFree(p)
		}
		if !ok || pl.files[at] || pl.isGuarded(at) {
			continue
		}
		switch pl.area(at).kind {
		case regionOverlay, regionRoot:
			pl.etcDir(path.Dir(at))
			pl.files[at] = true
			pl.mount(Mount{Kind: MountSymlink, Target: at, Data: BundleFile})
		case regionHost:
			pl.files[at] = true
			pl.mount(Mount{Kind: MountBind, Target: at, Data: BundleFile})
		}
	}
	return nil
}

func (pl *planner) planJava() error {
	const store = ownDir + "/cacerts"
	if err := pl.blob(store, pl.in.JavaStore); err != nil {
		return err
	}
	for _, p := range pl.shared().javaStores() {
		at, ok := pl.resolveShown(p)
		if !ok || pl.files[at] {
			continue
		}
		pl.files[at] = true
		if pl.area(at).kind == regionOverlay {
			pl.etcDir(path.Dir(at))
			pl.mount(Mount{Kind: MountSymlink, Target: at, Data: store})
		} else if pl.area(at).kind == regionHost {
			pl.mount(Mount{Kind: MountBind, Target: at, Data: store})
		}
	}
	return nil
}

// resolveShown follows the host's links of p to a regular file in the view.
func (pl *planner) resolveShown(p string) (string, bool) {
	to, err := filepath.EvalSymlinks(p)
	if err != nil {
		return "", false
	}
	fi, err := os.Lstat(to)
	if err != nil || !fi.Mode().IsRegular() || pl.isGuarded(to) {
		return "", false
	}
	return to, true
}

// linkFree returns p when no existing parent of it is a symbolic link.
func (pl *planner) linkFree(p string) (string, bool) {
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if fi, err := os.Lstat(dir); err == nil && fi.Mode()&os.ModeSymlink != 0 {
			return "", false
		}
	}
	return p, true
}

// accounts writes passwd and group with nobody in them but the agent.
func accounts(id Identity) (passwd, group string) {
	var p, g strings.Builder
	shell := "/bin/sh"
	if _, err := os.Stat("/bin/bash"); err == nil {
		shell = "/bin/bash"
	}
	if id.UID == 0 {
		fmt.Fprintf(&p, "root:x:0:0:root:%s:%s\n", Home, shell)
		fmt.Fprintf(&g, "root:x:0:\n")
	} else {
		fmt.Fprintf(&p, "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n")
		fmt.Fprintf(&p, "agent:x:%d:%d:agent:%s:%s\n", id.UID, id.GID, Home, shell)
		fmt.Fprintf(&g, "root:x:0:\nagent:x:%d:\n", id.GID)
	}
	fmt.Fprintf(&p, "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
	for _, gid := range id.Groups {
		if gid != id.GID {
			fmt.Fprintf(&g, "group%d:x:%d:%s\n", gid, gid, userName(id))
		}
	}
	fmt.Fprintf(&g, "tty:x:5:\nnogroup:x:65534:\n")
	return p.String(), g.String()
}

func userName(id Identity) string {
	if id.UID == 0 {
		return "root"
	}
	return "agent"
}

// Environment is the agent's environment: what the caller passes, with ours
// over it.
func Environment(in PlanInput) []string {
	set := map[string]string{
		"HOME": Home, "USER": userName(in.Identity), "LOGNAME": userName(in.Identity), "TMPDIR": "/tmp",
		"XDG_RUNTIME_DIR": fmt.Sprintf("/run/user/%d", in.Identity.UID), "RINGFENCE_SANDBOX": in.SandboxID,
	}
	if len(in.CABundle) > 0 {
		for _, v := range caVariables {
			set[v] = BundleFile
		}
	}
	if len(in.CACert) > 0 {
		set["NODE_EXTRA_CA_CERTS"] = CAFile
		set["DENO_TLS_CA_STORE"] = "system,mozilla"
	}
	defaults := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "SHELL=/bin/sh", "LANG=C.UTF-8", "TERM=xterm-256color"}
	var env []string
	have := map[string]bool{}
	for _, kv := range append(append([]string(nil), in.Env...), defaults...) {
		k, _, ok := strings.Cut(kv, "=")
		if _, ours := set[k]; !ok || k == "" || ours || have[k] || strings.ContainsRune(kv, 0) {
			continue
		}
		have[k] = true
		env = append(env, kv)
	}
	for _, k := range sortedKeys(set) {
		env = append(env, k+"="+set[k])
	}
	return env
}

func sortedKeys(m map[string]string) []string {
	return slices.Sorted(maps.Keys(m))
}
