// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"testing"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/inference"
	"github.com/ringfence/ringfence/pkg/wire"
)

// What a request may ask people about fits through the messages, and into what is
// kept: each side has bounds of its own.
func TestQuestionsFitEverywhere(t *testing.T) {
	for what, c := range map[string][2]int{
		"tools in a message":       {inference.MaxTools, wire.MaxApprovalTools},
		"settings in a message":    {inference.MaxAllSettings, wire.MaxApprovalSettings},
		"the model and its tools":  {1 + inference.MaxTools, approval.MaxCalls},
		"arguments of one request": {inference.MaxSettings, approval.MaxArguments},
	} {
		if c[0] > c[1] {
			t.Errorf("%s: %d, of which %d fit", what, c[0], c[1])
		}
	}
}
