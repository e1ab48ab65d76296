// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/url"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

// The OpenAI dialect is spoken at many hosts, at some of them under another path than
// "/v1". Agents address each as its own libraries do; here the path becomes the
// dialect's, and a provider's base URL says what it becomes on the way out.

// ownTarget is the target in the dialect's own form. One that is not under a prefix of
// its host stays as it is, and is judged so.
func (x *exchange) ownTarget(target string) string {
	if !x.d.baseHasVersion {
		return target
	}
	prefixes, ok := policy.FamilyPrefixes(x.c.Host)
	if !ok {
		prefixes = x.basePrefixes(target)
	}
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(target, p+"/"); ok {
			return ownVersion + rest
		}
	}
	return target
}

const ownVersion = "/v1/"

// basePrefixes are the paths of base URLs on the host that the agent asked for: who
// reaches a provider there writes it as the operator does.
func (x *exchange) basePrefixes(target string) (prefixes []string) {
	if strings.HasPrefix(target, ownVersion) || x.c.Snapshot == nil {
		return nil
	}
	for _, p := range x.c.Snapshot.Providers() {
		if p.Dialect != x.d.name || p.Platform != "" {
			continue
		}
		if u, err := url.Parse(p.BaseURL); err == nil && u.Hostname() == x.c.Host && u.Path != "" {
			prefixes = append(prefixes, strings.TrimRight(u.EscapedPath(), "/"))
		}
	}
	return prefixes
}
