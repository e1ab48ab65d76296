// SPDX-License-Identifier: Apache-2.0

package limit

// Waiting is how many calls wait in all buckets of a rule, for tests.
func (r *Rule) Waiting() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range r.buckets {
		if b.queue != nil {
			n += b.queue.n
		}
	}
	return n
}

// Len is how many buckets a rule has, for tests.
func (r *Rule) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.buckets)
}
