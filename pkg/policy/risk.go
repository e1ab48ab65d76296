// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"math/bits"
	"strings"
)

// Risk is a set of classes of tool calls. In a rule the zero value is "every
// call", in a call it is unclassified.
type Risk uint8

// Classes. Unclassified stands for what nobody classified and counts as
// destructive.
const (
	RiskRead Risk = 1 << iota
	RiskWrite
	RiskDestructive
	RiskExfil
	RiskExec
	RiskMoney
	RiskIdentity
	RiskUnclassified
)

var riskNames = []string{"read", "write", "destructive", "exfil", "exec", "money", "identity", "unclassified"}

// ParseRisk reads one class; the error says which there are.
func ParseRisk(s string) (Risk, error) {
	for i, n := range riskNames {
		if n == s {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("unknown risk %s; %s", quote(s), didYouMean(s, riskNames))
}

// Names are the classes as documents write them.
func (r Risk) Names() []string {
	out := []string{}
	for i, n := range riskNames {
		if r&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// String is the classes with commas between them.
func (r Risk) String() string { return strings.Join(r.Names(), ",") }

func (r Risk) count() int { return bits.OnesCount8(uint8(r)) }

// classified is the set of a call.
func (r Risk) classified() Risk {
	if r == 0 {
		return RiskUnclassified
	}
	return r
}

// covers says how many classes of a call the set of a rule names: any, and all.
func (r Risk) covers(call Risk) (some, all bool) {
	if r == 0 {
		return true, true
	}
	if r&RiskDestructive != 0 {
		r |= RiskUnclassified
	}
	call = call.classified()
	return r&call != 0, call&^r == 0
}
