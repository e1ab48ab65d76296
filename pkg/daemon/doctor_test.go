// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/ringfence/ringfence/pkg/sandbox"
)

func TestCheckGroup(t *testing.T) {
	for _, c := range []struct {
		name           string
		started, now   int
		ok             bool
		detail, remedy string
	}{
		{"there", 50, 50, true, "its members", ""},
		{"none", -1, -1, true, "only root", ""},
		{"made later", -1, 50, false, "after the daemon had started", "restart"},
		{"removed", 50, -1, false, "after the daemon had started", "restart"},
	} {
		got := checkGroup("ops", c.started, c.now)
		if got.OK != c.ok || !got.Optional || !strings.Contains(got.Detail, c.detail) || !strings.Contains(got.Remedy, c.remedy) || (got.Remedy == "") != c.ok {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestCheckOpenFiles(t *testing.T) {
	const enough = nodeSandboxes*sandbox.DescriptorsEach + sandbox.DescriptorsOwn
	for _, c := range []struct {
		name  string
		room  int
		limit uint64
		err   error
		ok    bool
	}{
		{"enough", nodeSandboxes, enough, nil, true},
		{"one too few", nodeSandboxes - 1, enough - 1, nil, false},
		{"unknown", nodeSandboxes, enough, errors.New("no such call"), false},
	} {
		got := checkOpenFiles(c.room, c.limit, c.err)
		if got.OK != c.ok || !got.Optional || (got.Remedy == "") != c.ok || !strings.Contains(got.Have, strconv.FormatUint(c.limit, 10)) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
