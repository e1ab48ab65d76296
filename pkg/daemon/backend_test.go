// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/api"
)

func TestASandboxThatIsJustEndingIsListedOnce(t *testing.T) {
	at := func(id string, sec int64, state string) api.Sandbox {
		return api.Sandbox{ID: id, Created: time.Unix(sec, 0), State: state}
	}
	got := listed([]api.Sandbox{at("b", 2, "running"), at("c", 3, "running")}, []endedSandbox{{view: at("a", 1, "stopped")}, {view: at("b", 2, "stopped")}})
	if len(got) != 3 || got[0].ID != "a" || got[1].ID != "b" || got[1].State != "stopped" || got[2].ID != "c" {
		t.Errorf("%+v", got)
	}
}
