// SPDX-License-Identifier: Apache-2.0

package policy

// Learning is the view of a sandbox that learns what it needs: TCP that no rule
// speaks of is allowed, by [Learn], as if a delegable allow stood above all layers.
// So whatever a rule says counts as ever: blocks, approvals, mandatory rules. Special-purpose
// addresses, and requests to hosts that a rule lets have such addresses, hosts of providers and what is no host name stay closed, and so does
// UDP: QUIC would hide what is to be learned.
func (v *View) Learning() *View {
	w := *v
	w.learns = true
	return &w
}

// silent is what stands where no egress rule speaks of a protocol.
func (v *View) silent(proto Proto) int32 {
	if v.learns && proto == TCP {
		return learnRule
	}
	return noRule
}
