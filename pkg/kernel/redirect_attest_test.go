// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"strings"
	"testing"
)

func TestAdoptedAttested(t *testing.T) {
	p := newPod(t)
	p.adopt(FlagDNS)
	for _, st := range p.box.Check() {
		if h := st.Name; h == "connect4" && !strings.Contains(st.Detail, "tag "+p.box.progs.tags[hookRedirect4]+")") {
			t.Errorf("%s: %s", h, st.Detail)
		}
	}
	for _, h := range []Hook{hookRedirect4, hookRedirectEgress, hookDepart} {
		if p.box.progs.tags[h] == "" {
			t.Errorf("program %d has no tag", h)
		}
		detachHook(t, p.box, h)
	}
	err := p.box.Attested()
	for _, want := range []string{"connect4: the link was detached", "egress: the link was detached", "depart: the link was detached"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
