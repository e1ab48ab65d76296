// SPDX-License-Identifier: Apache-2.0

// Package profiles holds the profiles that ship with Ringfence.
package profiles

import (
	"embed"
	"fmt"
	"sort"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Default is the profile used when none is named.
const Default = "default"

// Names lists the shipped profiles, sorted.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil // an embedded root is always readable
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	sort.Strings(out)
	return out
}

// Read is the text of a shipped profile and the file name to show in messages.
func Read(name string) (file string, data []byte, err error) {
	for _, n := range Names() {
		if n == name {
			data, err = files.ReadFile(name + ".yaml")
			return "profiles/" + name + ".yaml", data, err
		}
	}
	return "", nil, fmt.Errorf("no profile named %q; shipped are: %s", name, strings.Join(Names(), ", "))
}
