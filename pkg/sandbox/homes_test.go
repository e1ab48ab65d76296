// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestHomes(t *testing.T) {
	f := filepath.Join(t.TempDir(), "passwd")
	text := "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/bin/false\nann:x:1000:1000:Ann,,,:/home/ann/:/bin/sh\n" +
		"nobody:x:65534:65534::/nonexistent:/bin/false\nodd:x:1001:1001::/:/bin/sh\nrel:x:1002:1002::home:/bin/sh\nbroken:x:1003\nbad:x:y:1::/home/bad:/bin/sh\n\nbob:x:4000000000:1::/srv/bob:/bin/sh\n"
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := homes(f); err != nil || !slices.Equal(got, []string{"/root", "/home/ann", "/srv/bob"}) {
		t.Error(got, err)
	}
	if got, err := homes(f + "-none"); err == nil {
		t.Error("nobody's home is covered, and nobody says so:", got)
	}
	if err := os.WriteFile(f, []byte(text+strings.Repeat("x", 1<<17)+"\nlate:x:1009:1::/home/late:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := homes(f); err == nil {
		t.Error("the list ends early, and nobody says so:", got)
	}
}
