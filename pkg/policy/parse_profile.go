// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

var optionalFeatures = []string{FeatureMemoryLimit, FeaturePIDsLimit, FeatureUnixHooks, FeatureLandlockABI, FeatureExecTrace}

func (d *decoder) profile(m fieldMap, doc *Document) *Profile {
	p := &Profile{Name: doc.Name, Description: doc.Description, Workspace: WorkspaceNone, Require: Require{LandlockABI: 1}}
	if n := m.get("workspace"); n != nil {
		if s, ok := d.str(n, "workspace"); ok {
			modes := []string{string(WorkspaceRW), string(WorkspaceRO), string(WorkspaceNone)}
			if !slices.Contains(modes, s) {
				d.fail(n, didYouMean(s, modes), "unknown workspace mode %s", quote(s))
			}
			p.Workspace = WorkspaceMode(s)
		}
	}
	p.Explain = d.boolean(m.get("explain"), "explain")
	p.Terminal = d.boolean(m.get("terminal"), "terminal")
	p.UnixSockets = d.boolean(m.get("unixSockets"), "unixSockets")
	d.files(m.get("files"), p)
	p.Home = d.size(m.get("home"), "home")
	p.Tmp = d.size(m.get("tmp"), "tmp")
	p.Shm = d.size(m.get("shm"), "shm")
	d.env(m.get("env"), p)
	d.resources(m.get("resources"), p)
	d.sub(m.get("seccomp"), objSeccomp, func(s fieldMap) {
		p.Seccomp.Memfd = d.boolean(s.get("memfd"), "memfd")
	})
	d.sub(m.get("git"), objGit, func(s fieldMap) {
		p.Git.Protect = d.boolean(s.get("protect"), "protect")
	})
	d.sub(m.get("require"), objRequire, func(s fieldMap) {
		if n := s.get("landlockABI"); n != nil {
			p.Require.LandlockABI = int(d.number(n, "landlockABI", 1, 64))
		}
	})
	if n := m.get("optional"); n != nil {
		p.Optional = d.strs(n, "optional", func(s string) (string, error) {
			if !slices.Contains(optionalFeatures, s) {
				return "", fmt.Errorf("unknown feature %s; %s", quote(s), didYouMean(s, optionalFeatures))
			}
			return s, nil
		})
	}
	return p
}

// sub reads an optional mapping.
func (d *decoder) sub(n *yaml.Node, o *object, read func(fieldMap)) {
	if n == nil {
		return
	}
	if m, ok := d.mapping(n, o); ok {
		read(m)
	}
}

func (d *decoder) files(n *yaml.Node, p *Profile) {
	d.sub(n, objFiles, func(m fieldMap) {
		seen := map[string]string{}
		entries := func(field string) (out []PathEntry) {
			if m.get(field) == nil {
				return nil
			}
			d.strs(m.get(field), field, func(s string) (string, error) {
				clean, opt := strings.CutSuffix(s, "?")
				if err := checkAbsolute(clean); err != nil {
					return "", err
				}
				if other := seen[clean]; other != "" {
					return "", fmt.Errorf("%s is already in %s", quote(clean), other)
				}
				seen[clean] = field
				out = append(out, PathEntry{Path: clean, Optional: opt})
				return clean, nil
			})
			return out
		}
		p.Files.Read, p.Files.Exec, p.Files.Write = entries("read"), entries("exec"), entries("write")
		if h := m.get("hide"); h != nil {
			p.Files.Hide = d.strs(h, "hide", func(s string) (string, error) { return s, checkAbsolute(s) })
		}
		if g := m.get("guard"); g != nil {
			if p.Workspace == WorkspaceNone {
				d.fail(g, "add workspace: rw, or remove guard", "guard needs a workspace")
			}
			p.Files.Guard = d.strs(g, "guard", func(s string) (string, error) { return s, checkRelative(s) })
		}
	})
}

// ownPaths are built by the sandbox itself: no host file may be shown there.
var ownPaths = []string{"/proc", "/sys", "/dev", "/tmp", "/run", "/var/run"}

func checkAbsolute(s string) error {
	if err := checkPathText(s); err != nil {
		return err
	}
	if !path.IsAbs(s) || path.Clean(s) != s {
		return fmt.Errorf("path %s must be absolute and clean; for example %q", quote(s), path.Clean("/"+s))
	}
	if s == "/" {
		return fmt.Errorf("the whole file system cannot be shown; list the directories that are needed")
	}
	for _, o := range ownPaths {
		if s == o || strings.HasPrefix(s, o+"/") {
			return fmt.Errorf("path %s is the sandbox's own: nothing of the host is shown there", quote(s))
		}
	}
	return nil
}

func checkRelative(s string) error {
	if err := checkPathText(s); err != nil {
		return err
	}
	if path.IsAbs(s) || path.Clean(s) != s || s == "." || s == ".." || strings.HasPrefix(s, "../") {
		return fmt.Errorf("path %s must be clean and relative to the workspace", quote(s))
	}
	if strings.Contains(s, "*") {
		return fmt.Errorf("path %s: patterns are not known here; list each path", quote(s))
	}
	return nil
}

func checkPathText(s string) error {
	if len(s) > 4096 {
		return fmt.Errorf("a path is longer than 4096 bytes")
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("path %s has a control character", quote(s))
		}
	}
	return nil
}

func (d *decoder) env(n *yaml.Node, p *Profile) {
	p.Env.Set = map[string]string{}
	d.sub(n, objEnv, func(m fieldMap) {
		if v := m.get("pass"); v != nil {
			p.Env.Pass = d.strs(v, "pass", func(s string) (string, error) { return s, checkPass(s) })
		}
		v := m.get("set")
		if v == nil {
			return
		}
		if v.Kind != yaml.MappingNode {
			d.fail(v, "", "set must be a mapping, found %s %s", kindName(v), quote(v.Value))
			return
		}
		for i := 0; i+1 < len(v.Content); i += 2 {
			k, val := v.Content[i], v.Content[i+1]
			if err := checkEnvName(k.Value); err != nil {
				d.failText(k, err)
				continue
			}
			if _, ok := p.Env.Set[k.Value]; ok {
				d.fail(k, "", "variable %s is set twice", quote(k.Value))
				continue
			}
			if val.Kind != yaml.ScalarNode || val.ShortTag() != "!!str" || strings.Contains(val.Value, "\x00") {
				d.fail(val, "write it in quotes", "the value of %s must be a string, found %s %s", k.Value, kindName(val), quote(val.Value))
				continue
			}
			p.Env.Set[k.Value] = val.Value
		}
	})
}

func checkEnvName(s string) error {
	if s == "" || len(s) > 256 || s[0] >= '0' && s[0] <= '9' {
		return fmt.Errorf("%s is not a variable name", quote(s))
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_') {
			return fmt.Errorf("%s is not a variable name", quote(s))
		}
	}
	return nil
}

// secretWords mark variables that usually hold credentials or run code.
var secretWords = []string{"SECRET", "TOKEN", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIAL"}

var hostVariables = []string{"SSH_AUTH_SOCK", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY", "DOCKER_HOST", "KUBECONFIG",
	"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "BASH_ENV", "NODE_OPTIONS", "PYTHONSTARTUP"}

func checkPass(s string) error {
	body, wild := strings.CutSuffix(s, "*")
	if wild && len(body) < 3 {
		return fmt.Errorf(`%s passes too much; name the variables, or a prefix such as "LC_*"`, quote(s))
	}
	if err := checkEnvName(body); err != nil {
		return err
	}
	up := strings.ToUpper(body)
	for _, w := range secretWords {
		if strings.Contains(up, w) {
			return fmt.Errorf("%s looks like a credential; a profile does not pass those: use run --env %s for one run, or set a placeholder", quote(s), body)
		}
	}
	if slices.Contains(hostVariables, up) {
		return fmt.Errorf("%s reaches out of the sandbox or loads code into it; a profile does not pass it", quote(s))
	}
	return nil
}

func (d *decoder) resources(n *yaml.Node, p *Profile) {
	p.Resources.Rlimits = map[string]int64{}
	d.sub(n, objResources, func(m fieldMap) {
		p.Resources.Memory = d.size(m.get("memory"), "memory")
		p.Resources.PIDs = d.number(m.get("pids"), "pids", 1, 4194304)
		v := m.get("rlimits")
		if v == nil {
			return
		}
		if v.Kind != yaml.MappingNode {
			d.fail(v, "", "rlimits must be a mapping, found %s %s", kindName(v), quote(v.Value))
			return
		}
		for i := 0; i+1 < len(v.Content); i += 2 {
			d.rlimit(v.Content[i], v.Content[i+1], p)
		}
	})
}

func (d *decoder) rlimit(k, val *yaml.Node, p *Profile) {
	known := make([]string, 0, len(rlimitNumbers))
	for name := range rlimitNumbers {
		known = append(known, name)
	}
	sort.Strings(known)
	if !slices.Contains(known, k.Value) {
		d.fail(k, didYouMean(k.Value, known), "unknown limit %s", quote(k.Value))
		return
	}
	if _, ok := p.Resources.Rlimits[k.Value]; ok {
		d.fail(k, "", "limit %s is given twice", quote(k.Value))
		return
	}
	if val.Kind == yaml.ScalarNode {
		if val.Value == "unlimited" {
			p.Resources.Rlimits[k.Value] = -1
			return
		}
		if n, ok := parseSize(val.Value); ok {
			p.Resources.Rlimits[k.Value] = n
			return
		}
	}
	d.fail(val, "a number, a size such as 512Mi, or "+strconv.Quote("unlimited"), "limit %s: %s is not a value", k.Value, quote(val.Value))
}
