// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
)

func TestTheHomeOfAMemberIsNotWhatItSays(t *testing.T) {
	said := &api.Identity{UID: 65534, GID: 65534, Name: "root", Home: "/root"}
	if got := knownAs(65534, said); got.Home == "/root" || got.Name == "root" || got.UID != 65534 {
		t.Errorf("a member: %+v", got)
	}
	if got := knownAs(1_999_999_999, &api.Identity{UID: 1_999_999_999, Home: "/root"}); got.Home != "" {
		t.Errorf("a uid without an entry: %+v", got)
	}
	if got := knownAs(0, said); got != said {
		t.Errorf("root, who may say: %+v", got)
	}
}
