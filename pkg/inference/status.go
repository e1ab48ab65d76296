// SPDX-License-Identifier: Apache-2.0

package inference

import "github.com/ringfence/ringfence/pkg/inference/health"

// Places is what is known of the health of everybody who was asked.
func (r *Redirector) Places() []health.Look { return r.health.All() }
