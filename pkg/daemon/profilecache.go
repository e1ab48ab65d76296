// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"sync"

	"github.com/ringfence/ringfence/pkg/policy"
)

// profileCache keeps the profiles that were read by name, as long as their text
// stays the same. Nobody changes a profile once it is parsed. The zero value is
// ready.
type profileCache struct {
	mu sync.Mutex
	of map[string]parsedProfile // by file, of which there are as many as the operator and we wrote
}

type parsedProfile struct {
	text    string
	profile *policy.Profile
}

func (c *profileCache) parse(file string, text []byte) (*policy.Profile, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have, ok := c.of[file]; ok && have.text == string(text) {
		return have.profile, nil
	}
	p, err := parseProfile(file, text)
	if err != nil {
		return nil, err
	}
	if c.of == nil {
		c.of = map[string]parsedProfile{}
	}
	c.of[file] = parsedProfile{string(text), p}
	return p, nil
}

func parseProfile(file string, text []byte) (*policy.Profile, error) {
	docs, problems := policy.Parse(file, text)
	if len(problems) > 0 {
		return nil, policy.Problems(problems)
	}
	for _, p := range docs {
		if p.Kind == policy.KindProfile {
			return p.Profile, nil
		}
	}
	return nil, fmt.Errorf("%s: no document of kind Profile", file)
}
