// SPDX-License-Identifier: Apache-2.0

package policy

import "strings"

// providerTable is knownProviders by host, built once.
var providerTable = func() map[HostPattern]ProviderHost {
	t := make(map[HostPattern]ProviderHost, len(knownProviders))
	for _, k := range knownProviders {
		h, err := ParseHostPattern(k[0])
		if err != nil {
			panic("policy: provider table: " + err.Error())
		}
		e := ProviderHost{Host: h, Port: 443, Dialect: k[1], Provider: k[2]}
		if speaks(k[0]) != "" {
			e.reason = familyReason(k[0])
		}
		t[h] = e
	}
	return t
}()

// regionalTable is regionalProviders as entries, in the same order.
var regionalTable = func() []ProviderHost {
	t := make([]ProviderHost, len(regionalProviders))
	for i, r := range regionalProviders {
		t[i] = ProviderHost{Host: HostPattern{HostExact, r.prefix + "*" + r.suffix}, Port: 443, Provider: r.provider}
	}
	return t
}()

// regionalProvider finds a canonical host among the hosts with a region
// inside; nil if it is none.
func regionalProvider(host string) *ProviderHost {
	for i := range regionalProviders {
		r := &regionalProviders[i]
		if strings.HasSuffix(host, r.suffix) && strings.HasPrefix(host, r.prefix) && len(host) > len(r.prefix)+len(r.suffix) {
			return &regionalTable[i]
		}
	}
	return nil
}

// providerHostNamed reports whether every name of a pattern is a host of the
// table, so that a rule with it could never match.
func providerHostNamed(h HostPattern) (ProviderHost, bool) {
	if h.Kind == HostExact {
		if e := regionalProvider(h.Name); e != nil {
			return *e, true
		}
	}
	if e, ok := providerTable[h]; ok {
		return e, true
	}
	var best ProviderHost
	for p, e := range providerTable {
		if p.Contains(h) && (best.Host.Kind == HostNone || best.Host.Contains(p)) {
			best = e
		}
	}
	return best, best.Host.Kind != HostNone
}
