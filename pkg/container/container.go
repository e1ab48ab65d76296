// SPDX-License-Identifier: Apache-2.0

// Package container finds the cgroup of a container by the id that its runtime
// shows. It talks to no runtime: each of them names the cgroup after the id.
package container

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// pattern is how a runtime names the cgroup of a container: what stands around
// the id in the last element of the path, and in which directory.
type pattern struct {
	runtime        string
	prefix, suffix string
	in             string // an element that must stand somewhere above, "" for any
}

// patterns of runtimes with the systemd driver and with the cgroupfs driver.
var patterns = []pattern{
	{"Docker", "docker-", ".scope", ""},
	{"containerd", "cri-containerd-", ".scope", ""},
	{"CRI-O", "crio-", ".scope", ""},
	{"Podman", "libpod-", ".scope", ""},
	{"nerdctl", "nerdctl-", ".scope", ""},
	{"Docker", "", "", "docker"},
	{"Kubernetes", "", "", "kubepods"},
	{"CRI-O", "crio-", "", ""},
	{"Podman", "libpod-", "", ""},
	{"containerd", "", "", "default"},
	{"LXC", "lxc.payload.", "", ""},
}

// MinID is the least number of digits of an id, as runtimes shorten it.
const MinID = 12

// ErrNotFound says that no cgroup is named after the id.
var ErrNotFound = errors.New("no cgroup v2 is named after the container")

// Find returns the path of the container's cgroup below root, which is the
// cgroup v2 hierarchy. id is the container's id of 64 hexadecimal digits, or at
// least the first twelve; for LXC the container's name. A beginning that is
// that of several containers is an error.
func Find(root fs.FS, id string) (string, error) {
	if !plausible(id) {
		return "", fmt.Errorf("%q is no container id: those have %d to 64 letters and digits", id, MinID)
	}
	var found []string
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case !d.IsDir() || p == ".":
			return nil
		case matches(p, id):
			found = append(found, p)
			return fs.SkipDir // what the container makes below its own is its own
		}
		return nil
	})
	switch {
	case err != nil:
		return "", fmt.Errorf("look for the container: %w", err)
	case len(found) == 0 && len(id) < MinID:
		return "", fmt.Errorf("%w %s: that takes at least %d digits of the id, or LXC's whole name", ErrNotFound, id, MinID)
	case len(found) == 0:
		return "", fmt.Errorf("%w %s (looked for the names of %s)", ErrNotFound, id, strings.Join(Runtimes(), ", "))
	case len(found) > 1:
		return "", fmt.Errorf("%q is the beginning of several containers' ids: %s", id, strings.Join(found, ", "))
	}
	return found[0], nil
}

// plausible accepts what runtimes use in ids; LXC names may be shorter.
func plausible(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return len(id) > 0 && len(id) <= 64
}

// matches says whether the path is that of the container's cgroup.
func matches(p, id string) bool {
	dir, last := path.Split(p)
	above := strings.Split(dir, "/")
	for _, t := range patterns {
		rest, ok := strings.CutPrefix(last, t.prefix)
		if !ok {
			continue
		}
		if rest, ok = strings.CutSuffix(rest, t.suffix); !ok {
			continue
		}
		if t.in != "" && !slices.ContainsFunc(above, func(e string) bool { return e == t.in || strings.HasPrefix(e, t.in+".") }) {
			continue
		}
		if t.runtime == "LXC" {
			return rest == id
		}
		if rest == id || len(id) >= MinID && isHex(rest) && strings.HasPrefix(rest, id) {
			return len(id) >= MinID
		}
	}
	return false
}

// isHex says that s is a full id.
func isHex(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// Runtimes lists those whose names are known.
func Runtimes() []string {
	var out []string
	for _, t := range patterns {
		if !slices.Contains(out, t.runtime) {
			out = append(out, t.runtime)
		}
	}
	return out
}
