// SPDX-License-Identifier: Apache-2.0

package health

import "sync"

// Retries bounds the calls that a provider gets because others failed: a fifth of
// those that came to it first, and ten besides. So the failure of one does not
// become a flood for the next. The zero value is ready.
type Retries struct {
	mu   sync.Mutex
	left map[string]float64 // by provider
}

const (
	retryShare = 0.2
	retryMost  = 10.0
	// maxProviders bounds the names; there are as many as documents.
	maxProviders = 4096
)

// First notes a call that came to a provider first.
func (r *Retries) First(provider string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n, ok := r.left[provider]; ok {
		r.left[provider] = min(n+retryShare, retryMost)
	}
}

// Extra asks for one call more.
func (r *Retries) Extra(provider string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.left[provider]
	if !ok {
		if r.left == nil || len(r.left) >= maxProviders {
			r.left = map[string]float64{}
		}
		n = retryMost
	}
	if n < 1 {
		return false
	}
	r.left[provider] = n - 1
	return true
}
