// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// toolRules is what a dialect says about work on the provider's side, as data.
// A rule's tool is the name that policy decides on (server:provider/tool:NAME);
// the empty name means the client does the work and nothing leaves the fence.
type toolRules struct {
	types  []rule // values of "type" of tool definitions; patterns with *
	fields []rule // top-level members that ask for provider-side work when set
	// never are top-level members that would send the call elsewhere than
	// policy decided; no rule opens them.
	never []string
	// sources: objects under "source" are judged by their type (Anthropic).
	sources bool
	// wrapped: block types whose member (tool) holds a tool in (definition).
	wrapped []string
	// opaque are members that hold the client's own data (schemas, arguments),
	// skipped wherever they are.
	opaque []string
	// opaqueIn: the member "input" of blocks of these types is data.
	opaqueIn []string
	// listings: blocks whose "tools" are a report, not definitions.
	listings []string
	// walk judges a whole request where the dialect has no types; the rest of the
	// table is not used then.
	walk func(w *walker)
}

type rule struct{ match, tool string }

// finding is one thing the provider would do on its side.
type finding struct {
	tool  string
	what  string // for the agent: the thing found
	param string
	never string // not "": why no rule opens it

	at   []occurrence // everything that asks for the tool
	many bool         // and more than that
}

// occurrence is one thing that asks for a tool: a value of the request, or the model
// (0).
type occurrence struct {
	param string
	node  uint32
}

// maxFindings bounds what is asked of policy for one request; each tool is
// asked once. maxOccurrences bounds what is told of one.
const (
	maxFindings    = 32
	maxOccurrences = 16
)

// inspect lists the provider-side work that a parsed request asks for; more is told
// of what it asks for beside its body. What it lists is all there is only if the
// tape has no variant then.
func inspect(t *tape, r *toolRules, more func(*walker)) []finding {
	w := walker{t: t, r: r}
	if r.walk != nil {
		r.walk(&w)
		more(&w)
		return w.found
	}
	t.children(0, func(c uint32) bool {
		n, low := &t.nodes[c], t.folded(c)
		if has(r.never, low) && n.kind != kindNull {
			key := string(low)
			w.found = append(w.found, finding{never: "would send the call elsewhere than policy decided", what: "the field " + quote(key), param: key})
			return false
		}
		if t.called(c, low, "metadata") {
			return true
		}
		for i := range r.fields {
			if f := &r.fields[i]; t.called(c, low, f.match) && isSet(t, c, f.tool) {
				w.add(f.tool, "the field "+quote(f.match), f.match, c)
			}
		}
		w.member(0, c, low)
		return true
	})
	more(&w)
	return w.found
}

// toolDearer is asked of policy where a request is to be answered sooner for a price
// that no table of prices has, so that what budgets count would be too little.
// plainTiers are those for the price of the table, or less.
const toolDearer = "priority"

var plainTiers = []string{"auto", "default", "standard", "standard_only", "flex", "on_demand", "batch", "unspecified"}

func has(list []string, key []byte) bool {
	for _, s := range list {
		if s == string(key) {
			return true
		}
	}
	return false
}

// isSet says whether a member really asks for something. A stored prompt is an
// object; "prompt" as text is the legacy completion's input.
func isSet(t *tape, c uint32, tool string) bool {
	n := &t.nodes[c]
	if tool == "prompt" {
		return n.kind == kindObject
	}
	if s, ok := t.text(c); ok && tool == toolDearer && slices.Contains(plainTiers, strings.ToLower(s)) {
		return false
	}
	switch n.kind {
	case kindNull, kindFalse:
		return false
	case kindArray, kindString:
		return !(n.end-n.start == 2 || n.kind == kindArray && n.next == c+1)
	}
	return true
}

type walker struct {
	t     *tape
	r     *toolRules
	found []finding
	refs  bool // inside tool_choice: tools are named, not defined
}

// add notes what asks for a tool. What is beyond the bound is refused whatever
// policy says of the rest. An object that asks is known by its type and name (see
// exchange.tool), so these are looked up here, while a variant still counts.
func (w *walker) add(tool, what, param string, node uint32) {
	if node != 0 {
		w.t.member(node, "type")
		w.t.member(node, "name")
	}
	for i := range w.found {
		if f := &w.found[i]; f.tool == tool {
			if f.many = f.many || len(f.at) == maxOccurrences; !f.many {
				f.at = append(f.at, occurrence{param, node})
			}
			return
		}
	}
	if len(w.found) >= maxFindings {
		w.found[maxFindings-1] = finding{never: "is more than policy is asked about at once", what: strconv.Itoa(maxFindings) + " kinds of work on the provider's side", param: param}
		return
	}
	w.found = append(w.found, finding{tool: tool, what: what, param: param, at: []occurrence{{param, node}}})
}

// member judges member c of object parent; low is its folded key.
func (w *walker) member(parent, c uint32, low []byte) {
	t := w.t
	switch {
	case t.called(c, low, w.r.opaque...):
		return
	case t.called(c, low, "tools"):
		if !slices.Contains(w.r.listings, w.typeOf(parent)) {
			w.tools(c, w.tool)
		}
		return
	case string(low) == "input" && parent != 0 && slices.Contains(w.r.opaqueIn, w.typeOf(parent)):
		t.exact(c, low)
		return
	case bytes.HasSuffix(low, []byte("_url")), bytes.HasSuffix(low, []byte("_urls")):
		t.exact(c, low)
		w.url(c, string(low))
	case t.called(c, low, "file_id", "file_ids", "vector_store_ids"):
		if isSet(t, c, "") {
			w.add("file_id", "the field "+quote(string(low))+", a file stored at the provider,", string(low), c)
		}
	case t.called(c, low, "file_data"):
		if s, ok := t.text(c); ok && !dataURL(s) && strings.Contains(s[:min(len(s), 64)], "://") {
			w.add("file_url", "a URL in \"file_data\"", "file_data", c)
		}
	case w.r.sources && t.called(c, low, "source") && t.nodes[c].kind == kindObject:
		w.source(parent, c)
	}
	if parent == 0 && t.called(c, low, "tool_choice") {
		w.refs = true
		defer func() { w.refs = false }()
	}
	w.value(c)
}

// value walks an object or array of content.
func (w *walker) value(i uint32) {
	t := w.t
	switch t.nodes[i].kind {
	case kindObject:
		typ := w.typeOf(i)
		if typ != "" {
			w.toolType(i, typ, false)
			if slices.Contains(w.r.wrapped, typ) {
				w.definition(i)
			}
		}
		t.children(i, func(c uint32) bool {
			w.member(i, c, t.folded(c))
			return true
		})
	case kindArray:
		t.children(i, func(c uint32) bool {
			if k := t.nodes[c].kind; k == kindObject || k == kindArray {
				w.value(c)
			}
			return true
		})
	}
}

// typeOf returns the "type" of an object, "" if it has none.
func (w *walker) typeOf(i uint32) string {
	if c, ok := w.t.member(i, "type"); ok {
		s, _ := w.t.text(c)
		return s
	}
	return ""
}

// tools judges a list of tool definitions, each with judge: what is not known to run
// at the client is refused.
func (w *walker) tools(list uint32, judge func(entry uint32)) {
	t := w.t
	switch t.nodes[list].kind {
	case kindNull:
		return
	case kindArray:
	default:
		w.add("unknown", "the field \"tools\", which is not a list,", "tools", list)
		return
	}
	t.children(list, func(c uint32) bool {
		judge(c)
		return true
	})
}

func (w *walker) tool(c uint32) {
	t := w.t
	if t.nodes[c].kind != kindObject {
		w.add("unknown", "an entry of \"tools\" that is not an object", "tools", c)
		return
	}
	at, has := t.member(c, "type")
	typ, isText := "", true
	if has && t.nodes[at].kind != kindNull {
		typ, isText = t.text(at)
	}
	if !isText {
		w.add("unknown", "a tool whose type is not a string", "tools", c)
		return
	}
	w.toolType(c, typ, true)
	if nested, ok := t.member(c, "tools"); ok {
		w.tools(nested, w.tool)
	}
}

// toolType looks a type up. Inside "tools" an unknown one is refused; anywhere
// else only the types of provider-side tools count.
func (w *walker) toolType(obj uint32, typ string, strict bool) {
	low := strings.ToLower(typ)
	for _, r := range w.r.types {
		if !glob(r.match, low) {
			continue
		}
		if r.tool == "" || r.tool == "shell" && (w.refs || w.localShell(obj)) {
			return
		}
		w.add(r.tool, "the tool "+quote(typ), "tools", obj)
		return
	}
	if strict {
		w.add(toolName(typ), "the tool type "+quote(typ)+", which this version does not know and takes for one that", "tools", obj)
	}
}

// localShell says whether a shell tool runs at the client.
func (w *walker) localShell(obj uint32) bool {
	env, ok := w.t.member(obj, "environment")
	return ok && w.typeOf(env) == "local"
}

// definition judges the tool inside a block that adds one in mid-conversation.
func (w *walker) definition(block uint32) {
	tool, ok := w.t.member(block, "tool")
	if !ok {
		return
	}
	if def, ok := w.t.member(tool, "definition"); ok {
		w.tool(def)
	}
}

// url judges a member whose name says that it holds a URL: only data: URLs,
// which nobody fetches, pass.
func (w *walker) url(c uint32, low string) {
	t := w.t
	n := &t.nodes[c]
	switch n.kind {
	case kindString:
		if s, _ := t.text(c); s == "" || dataURL(s) {
			return
		}
	case kindObject:
		u, ok := t.member(c, "url")
		if !ok {
			return
		}
		if s, _ := t.text(u); dataURL(s) {
			return
		}
	case kindArray:
		t.children(c, func(e uint32) bool {
			w.url(e, low)
			return true
		})
		return
	default:
		return
	}
	w.add(urlTool(low), "fetching the URL in "+quote(low), low, c)
}

func urlTool(low string) string {
	switch low {
	case "image_url", "file_url":
		return low
	case "server_url":
		return "mcp"
	}
	return "url"
}

func dataURL(s string) bool {
	const scheme = "data:"
	return len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme)
}

// source judges Anthropic's "source" of images and documents.
func (w *walker) source(parent, c uint32) {
	switch typ := w.typeOf(c); typ {
	case "base64", "text", "content":
	case "url":
		tool := "file_url"
		if w.typeOf(parent) == "image" {
			tool = "image_url"
		}
		w.add(tool, "fetching the URL in \"source\"", "source", c)
	case "file":
		w.add("file_id", "a source of type \"file\", a file stored at the provider,", "source", c)
	default:
		w.add(toolName("source_"+typ), "the source type "+quote(typ)+", which this version does not know and takes for one that", "source", c)
	}
}

// toolName makes a name that a selector can hold.
func toolName(s string) string {
	clean := strings.Map(func(r rune) rune {
		if r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.@-", r)) {
			return r
		}
		return '_'
	}, s)
	if clean == "" {
		return "unknown"
	}
	return clean[:min(len(clean), 64)]
}

// glob matches s with a pattern in which * stands for any run of bytes.
func glob(pattern, s string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	if !strings.HasPrefix(s, head) {
		return false
	}
	s = s[len(head):]
	for {
		var mid string
		mid, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, mid)
		}
		i := strings.Index(s, mid)
		if i < 0 {
			return false
		}
		s = s[i+len(mid):]
	}
}

// searchModels are models that search the web, or run code, on the provider's
// side whether or not a tool asks for it.
var searchModels = []rule{
	{"*-search-preview*", "web_search"},
	{"*-search-api*", "web_search"},
	{"*deep-research*", "web_search"},
	{"*:online", "web_search"},
	{"sonar*", "web_search"},
	{"*/sonar*", "web_search"},
	{"compound*", "web_search"},
	{"*/compound*", "web_search"},
}

// searchModel returns the tool that a model uses by itself, "" if none.
func searchModel(model string) string {
	low := strings.ToLower(model)
	for _, m := range searchModels {
		if glob(m.match, low) {
			return m.tool
		}
	}
	return ""
}

func toolRemedy(tool string) string {
	switch tool {
	case "image_url", "file_url", "url":
		return "Fetch it yourself through the fence and send the content (base64 or a data: URL), or ask the operator for a tools rule on server:provider/tool:" + tool
	case "file_id":
		return "Send the content in the request, or ask the operator for a tools rule on server:provider/tool:file_id"
	}
	return "Do it with a tool of your own inside the sandbox, or ask the operator for a tools rule on server:provider/tool:" + tool
}
