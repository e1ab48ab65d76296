// SPDX-License-Identifier: Apache-2.0

package health

import "sync"

// Retries bounds the calls that a provider gets because others failed: a fifth of
// those that came to it first, and ten besides, of one agent five. So the failure of
// one does not become a flood for the next, and no agent uses up what others may.
// The zero value is ready.
type Retries struct {
	mu   sync.Mutex
	left map[retrier]float64
}

// retrier is a provider and who calls it; "" is everybody together.
type retrier struct{ provider, who string }

const (
	retryShare = 0.2
	retryMost  = 10.0
	retryOwn   = 5.0
	// maxRetriers bounds the table. When it is full all begin anew; the provider's own
	// bound is the same then.
	maxRetriers = 4096
)

func retriers(provider, who string) []retrier {
	keys := []retrier{{provider, ""}, {provider, who}}
	if who == "" {
		return keys[:1]
	}
	return keys
}

func (r retrier) most() float64 {
	if r.who == "" {
		return retryMost
	}
	return retryOwn
}

// First notes a call that came to a provider first.
func (r *Retries) First(provider, who string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range retriers(provider, who) {
		if n, ok := r.left[k]; ok {
			r.left[k] = min(n+retryShare, k.most())
		}
	}
}

// Extra asks for one call more.
func (r *Retries) Extra(provider, who string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := retriers(provider, who)
	if r.left == nil || len(r.left)+len(keys) > maxRetriers {
		r.left = map[retrier]float64{}
	}
	for _, k := range keys {
		if _, ok := r.left[k]; !ok {
			r.left[k] = k.most()
		}
		if r.left[k] < 1 {
			return false
		}
	}
	for _, k := range keys {
		r.left[k]--
	}
	return true
}
