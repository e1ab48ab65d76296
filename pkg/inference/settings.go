// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strconv"
	"strings"
)

// Tool is something that the provider would do on its side and that policy has
// people decide.
type Tool struct {
	Name       string    // as policy decides on it: "web_search"
	Definition [32]byte  // SHA-256 over dialect, name, and the types and names of all that asks for it
	Settings   []Setting // everything else that the request says of it, in the order of their paths
	Shown      string    // what it is, for people: settings, and nothing of what was said
}

// Setting is one value in a request that asks for a tool. Its path is as
// approval.Argument has it.
type Setting struct {
	Path string
	Kind string   // "string", "number", "boolean", "null"; "" of a list or an object
	Hash [32]byte // SHA-256 over its kind and its bytes as they were sent
	Text string   // where people may read it
	Kept bool     // they may
}

// Bounds of what people are asked about for one request.
const (
	MaxTools       = 8
	MaxSettings    = 32  // of one tool
	MaxAllSettings = 128 // of all of them
	maxSettingPath = 128
	maxSettingText = 128
	maxShown       = 900
)

// shownSettings are the names of settings whose text people may read: what the
// official libraries know as settings of tools, none of which is a secret or was
// said to the model. Numbers and booleans are shown under every name.
var shownSettings = []string{
	"allowed_callers", "allowed_domains", "allowed_tools", "background", "blocked_domains", "city", "connector_id", "country", "environment", "exclude_domains", "excludedomains",
	"file_id", "file_ids", "file_search_store_names", "filesearchstorenames", "input_fidelity", "mcp_server_name", "memory_limit", "mode", "model", "moderation", "output_format", "quality", "ranker", "region",
	"require_approval", "search_context_size", "server_label", "size", "timezone", "tool_names", "ttl", "type", "vector_store_ids",
}

// shownURLs are those whose text is a URL: read where it holds no password and no
// query.
var shownURLs = []string{"file_uri", "file_url", "fileuri", "image_url", "server_url", "url"}

// privateSettings are those of which nothing below is read.
var privateSettings = []string{"api_key", "apiauth", "apikey", "apikeystring", "auth_config", "authconfig", "authorization", "credentials", "custom_configs", "customconfigs", "env", "environment_variables", "headers", "http_headers", "secrets"}

// tool describes what asks for a tool, for people; false: it has more settings
// than can be put to them.
func (x *exchange) tool(f *finding) (Tool, bool) {
	h := sha256.New()
	put := func(s string) { h.Write([]byte(strconv.Itoa(len(s)) + ":" + s)) }
	put(x.d.name)
	put(f.tool)
	out := Tool{Name: f.tool}
	var types []string
	whole, top := settings{t: &x.tape}, settings{t: &x.tape, flat: true}
	for n, at := range f.at {
		prefix := ""
		if len(f.at) > 1 {
			prefix = strconv.Itoa(n) + "."
		}
		put(at.param)
		if at.node == 0 { // the model does it by itself
			put(x.served)
			types = append(types, x.served)
			continue
		}
		typ, name := whole.textOf(at.node, "type"), whole.textOf(at.node, "name")
		put(typ)
		put(name)
		types = append(types, cmp.Or(typ, at.param))
		whole.occurrence(prefix, at)
		top.occurrence(prefix, at)
	}
	h.Sum(out.Definition[:0])
	list := &whole
	if !whole.fits() {
		list = &top
	}
	slices.SortFunc(list.out, func(a, b Setting) int { return strings.Compare(a.Path, b.Path) })
	out.Settings = list.out
	out.Shown = strings.Join(types, ", ")
	if len(out.Settings) > 0 {
		out.Shown += ": " + shown(out.Settings)
	}
	if len(out.Shown) > maxShown {
		out.Shown = strings.ToValidUTF8(out.Shown[:maxShown], "") + "..."
	}
	return out, list.fits() && !f.many && !list.twice()
}

func shown(list []Setting) string {
	var words []string
	for _, s := range list {
		if s.Kept {
			words = append(words, s.Path+"="+s.Text)
		} else {
			words = append(words, s.Path+" (not shown)")
		}
	}
	return strings.Join(words, " ")
}

// settings takes a part of a request to pieces: to single values, or with flat to
// members of the outermost object.
type settings struct {
	t    *tape
	flat bool
	out  []Setting
	long bool // a path is
}

// fits says whether it is within the bounds so far; beyond them no more is taken.
func (s *settings) fits() bool { return !s.long && len(s.out) <= MaxSettings }

// twice says whether two settings, sorted, have one path: names that are no text may
// be written alike.
func (s *settings) twice() bool {
	for i := 1; i < len(s.out); i++ {
		if s.out[i-1].Path == s.out[i].Path {
			return true
		}
	}
	return false
}

// textOf is a member's text, "" if there is none.
func (s *settings) textOf(obj uint32, name string) string {
	if c, ok := s.t.member(obj, name); ok {
		text, _ := s.t.text(c)
		return text
	}
	return ""
}

// occurrence takes one thing that asks for a tool: the members of an object that
// has a type, or a member of another name as itself. What its Definition has is
// no setting.
func (s *settings) occurrence(prefix string, at occurrence) {
	t := s.t
	if t.nodes[at.node].kind != kindObject || s.textOf(at.node, "type") == "" && at.param != "tools" {
		s.value(prefix+escape(at.param), at.node, []string{at.param})
		return
	}
	typ, _ := t.member(at.node, "type")
	name, _ := t.member(at.node, "name")
	t.children(at.node, func(c uint32) bool {
		key := t.key(c)
		if t.nodes[c].kind == kindString && (c == typ || c == name) {
			return true
		}
		s.value(prefix+escape(key), c, []string{key})
		return s.fits()
	})
}

// value takes what stands at path. A path that is too long is not made longer: what
// a request costs here must not grow with the depth at which its names stand.
func (s *settings) value(path string, i uint32, names []string) {
	t := s.t
	n := &t.nodes[i]
	whole := s.flat || n.next == i+1
	switch {
	case len(path) > maxSettingPath:
		s.long = true
	case n.kind != kindObject && n.kind != kindArray:
		s.put(path, i, names)
	case whole && n.kind == kindObject:
		s.put(path+"{}", i, nil) // no pattern can free it
	case whole:
		s.put(path+"[]", i, nil)
	case n.kind == kindObject:
		t.children(i, func(c uint32) bool {
			key := t.key(c)
			s.value(path+"."+escape(key), c, append(names, key))
			return s.fits()
		})
	default:
		k := 0
		t.children(i, func(c uint32) bool {
			s.value(path+"."+strconv.Itoa(k), c, names)
			k++
			return s.fits()
		})
	}
}

// put takes one value: its text where it may be shown.
func (s *settings) put(path string, i uint32, names []string) {
	if len(path) > maxSettingPath {
		s.long = true
		return
	}
	n := &s.t.nodes[i]
	h := sha256.New()
	h.Write([]byte{byte(n.kind)})
	h.Write(s.t.src[n.start:n.end])
	out := Setting{Path: path, Kind: n.kind.scalar()}
	h.Sum(out.Hash[:0])
	if text, ok := s.short(i); ok && !private(names) && (n.kind != kindString || mayShow(names, text)) {
		out.Text, out.Kept = text, true
	}
	s.out = append(s.out, out)
}

// scalar is the name of a kind of value that is no list and no object, as
// approval.Argument has it.
func (k kind) scalar() string {
	switch k {
	case kindNull:
		return "null"
	case kindFalse, kindTrue:
		return "boolean"
	case kindNumber:
		return "number"
	case kindString:
		return "string"
	}
	return ""
}

// short is the text of a value that is one, and short enough to be shown.
func (s *settings) short(i uint32) (string, bool) {
	const longest = 2 + 6*maxSettingText // as sent, every byte an escape
	n := &s.t.nodes[i]
	if n.kind == kindObject || n.kind == kindArray || n.end-n.start > longest {
		return "", false
	}
	text := string(s.t.src[n.start:n.end])
	if n.kind == kindString {
		text, _ = s.t.text(i)
	}
	return text, len(text) <= maxSettingText
}

// private says whether what stands under these names is nobody's to read: headers
// and the like carry tokens, whatever they are called themselves.
func private(names []string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(privateSettings, strings.ToLower(n)) })
}

// mayShow says whether people may read a string that stands under these names.
func mayShow(names []string, text string) bool {
	if len(names) == 0 {
		return false
	}
	last := strings.ToLower(names[len(names)-1])
	return slices.Contains(shownSettings, last) || slices.Contains(shownURLs, last) && !strings.ContainsAny(text, "?#@")
}

// escape writes a name as a part of a path, so that no two ways are one path. Of a
// name that makes the path too long anyway it writes no more than shows that.
func escape(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range min(len(name), maxSettingPath+1) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '@' || c == '-' {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	if b.Len() == 0 {
		return "%" // an empty name
	}
	return b.String()
}
