// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	maxTarget     = 2048
	maxIdentifier = 256
)

// matchTarget finds the route of a request by its raw request target. There
// is no normalisation: a target with an escape, a dot segment, an empty
// segment or anything else that two parsers could read in two ways matches
// no route and is refused.
func matchTarget(d *dialect, method, target string) (*route, string, *refusal) {
	path, query, hasQuery := strings.Cut(target, "?")
	if len(target) > maxTarget || path != "/" && !plainPath(path) {
		return nil, "", denied("path", "the path "+quote(path)+" is not in plain form (no escapes, dots or empty segments)",
			"Use the documented path of the API")
	}
	var other bool
	for i := range d.routes {
		rt := &d.routes[i]
		if !pathMatches(rt.path, path) {
			continue
		}
		if rt.method != method {
			other = true
			continue
		}
		if len(d.queryKeys) > 0 && hasQuery {
			query = withoutKeys(d, query)
			hasQuery = query != ""
		}
		if ref := checkQuery(rt, query, hasQuery); ref != nil {
			return nil, "", ref
		}
		return rt, query, nil
	}
	if other {
		return nil, "", denied("path", method+" "+quote(path)+" is not an offered operation of the "+d.name+" API", offer(d))
	}
	for _, c := range d.closed {
		if path == c.prefix || strings.HasPrefix(path, c.prefix+"/") {
			return nil, "", denied("path", quote(path)+" is not offered: "+c.why, offer(d))
		}
	}
	return nil, "", denied("path", quote(path)+" is not an offered operation of the "+d.name+" API", offer(d))
}

func offer(d *dialect) string {
	var paths []string
	for i := range d.routes {
		if rt := &d.routes[i]; rt.method == http.MethodPost && !strings.Contains(rt.path, "*") {
			paths = append(paths, rt.path)
		}
	}
	return "Offered are " + strings.Join(paths, ", ")
}

// plainPath says whether p is an absolute path of unreserved characters only.
func plainPath(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for _, seg := range strings.Split(p[1:], "/") {
		if seg == "" || seg == "." || seg == ".." || !plainSegment(seg) {
			return false
		}
	}
	return true
}

func plainSegment(s string) bool {
	if len(s) > maxIdentifier {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._~:@", rune(c)) {
			return false
		}
	}
	return true
}

// pathMatches compares a plain path with a pattern whose segment "*" stands
// for any one segment.
func pathMatches(pattern, path string) bool {
	for {
		ps, prest, pmore := strings.Cut(pattern[1:], "/")
		ss, srest, smore := strings.Cut(path[1:], "/")
		if !segmentMatches(ps, ss) || pmore != smore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, path = "/"+prest, "/"+srest
	}
}

// segmentMatches compares one segment; see route.
func segmentMatches(pattern, s string) bool {
	verb, ok := strings.CutPrefix(pattern, "*:")
	if !ok {
		return pattern == "*" || pattern == s
	}
	id, rest, has := strings.Cut(s, ":")
	return id != "" && has == (verb != "") && rest == verb
}

// withoutKeys leaves the parameters that carry the caller's credential out of a
// query, however their names are written.
func withoutKeys(d *dialect, query string) string {
	var kept []string
	for _, pair := range strings.Split(query, "&") {
		k, _, _ := strings.Cut(pair, "=")
		if key, err := url.QueryUnescape(k); err != nil || !slices.Contains(d.queryKeys, key) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// callersKey is the credential that a query carries; "" is none, or more than one.
func callersKey(d *dialect, query string) (key string) {
	n := 0
	for _, pair := range strings.Split(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(k); err == nil && slices.Contains(d.queryKeys, name) {
			key, err = url.QueryUnescape(v)
			if n++; err != nil || n > 1 {
				return ""
			}
		}
	}
	return key
}

// checkQuery admits the query keys of the route and refuses every other one:
// query strings carry keys ("?key=") and switches of proxies.
func checkQuery(rt *route, query string, has bool) *refusal {
	if !has {
		return needed(rt, nil)
	}
	if query == "" || strings.ContainsAny(query, ";#") {
		return denied("query", "the query string is not in plain form", "Leave it out")
	}
	seen := make(map[string]bool, 4)
	for _, pair := range strings.Split(query, "&") {
		k, v, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(k)
		if err != nil || k == "" {
			return denied("query", "the query string is not in plain form", "Leave it out")
		}
		if _, err := url.QueryUnescape(v); err != nil || len(v) > maxIdentifier {
			return denied("query", "the value of query parameter "+quote(key)+" is malformed", "Correct it")
		}
		if !slices.Contains(rt.query, key) && !slices.Contains(rt.query, pair) {
			return denied("query", "the query parameter "+quote(key)+" is not offered for "+rt.method+" "+rt.path, "Leave it out")
		}
		if seen[key] && !strings.HasPrefix(key, "include") {
			return denied("query", "the query parameter "+quote(key)+" is given twice", "Give it once")
		}
		seen[key] = true
	}
	return needed(rt, seen)
}

// needed is the refusal of a call without the parameter that its route needs.
func needed(rt *route, seen map[string]bool) *refusal {
	name, _, _ := strings.Cut(rt.needs, "=")
	if name == "" || seen[name] {
		return nil
	}
	return denied("query", rt.method+" "+rt.path+" is offered with "+rt.needs+" only", "Add it to the query")
}

// upstreamURL joins a provider's base URL and an admitted target.
func upstreamURL(d *dialect, base, path, query string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errBadBase
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errBadBase
	}
	prefix := strings.TrimRight(u.Path, "/")
	version, rest, _ := strings.Cut(path[1:], "/")
	if prefix != "" && (d.baseHasVersion || strings.HasSuffix(prefix, "/"+version)) {
		path = "/" + rest
	}
	out := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: prefix + path, RawQuery: query}
	return out, nil
}
