// SPDX-License-Identifier: Apache-2.0

package inference

import "strings"

// geminiRules is what the dialect says about work on the provider's side. The API has
// no types: what a part or a tool is, is said by the member that it has.
var geminiRules = toolRules{walk: walkGemini}

// memberKind says what a known member of a request is.
type memberKind uint8

const (
	memberOpaque memberKind = iota // the client's own data: not looked into
	memberTools                    // a list of tools
	memberAsks                     // asks for work on the provider's side when it is set
	memberNever                    // would send the call elsewhere than policy decided
	memberURI                      // a URI that the provider would fetch
)

// geminiMember is a known member. Members that are not in the table are walked.
type geminiMember struct {
	name string // as in JSON
	kind memberKind
	tool string // that policy decides on
}

// geminiMembers are known by name wherever they stand, outside of opaque ones.
// Sources: the REST reference of v1beta and the request types of genai v1.77.
var geminiMembers = memberTable([]geminiMember{
	{"tools", memberTools, ""},

	{"cachedContent", memberAsks, "cached_content"}, // stored in the operator's account
	{"modelArmorConfig", memberAsks, "model_armor"}, // filters of the account, by choice of the agent
	{"generationOutputConfig", memberAsks, "file_output"},
	{"gcsUri", memberAsks, "file_output"},
	{"serviceTier", memberAsks, toolDearer},
	{"fileUri", memberURI, "file_url"},

	{"routingConfig", memberNever, ""},
	{"modelSelectionConfig", memberNever, ""},
	{"extraBody", memberNever, ""},
	{"httpOptions", memberNever, ""},

	{"parameters", memberOpaque, ""}, {"parametersJsonSchema", memberOpaque, ""},
	{"response", memberOpaque, ""}, {"responseJsonSchema", memberOpaque, ""},
	{"responseSchema", memberOpaque, ""}, {"schema", memberOpaque, ""},
	{"args", memberOpaque, ""}, {"labels", memberOpaque, ""}, {"partMetadata", memberOpaque, ""},
	{"data", memberOpaque, ""},
})

// geminiTools are the members of an entry of "tools". One that is not known here is
// taken for work on the provider's side.
var geminiTools = memberTable([]geminiMember{
	{"functionDeclarations", memberAsks, ""}, // the client does the work
	{"computerUse", memberAsks, "computer_use"},
	{"googleSearch", memberAsks, "web_search"},
	{"googleSearchRetrieval", memberAsks, "web_search"},
	{"enterpriseWebSearch", memberAsks, "web_search"},
	{"parallelAiSearch", memberAsks, "web_search"},
	{"exaAiSearch", memberAsks, "web_search"},
	{"urlContext", memberAsks, "web_fetch"},
	{"codeExecution", memberAsks, "code_execution"},
	{"fileSearch", memberAsks, "file_search"},
	{"googleMaps", memberAsks, "google_maps"},
	{"mcpServers", memberAsks, "mcp"},
	{"retrieval", memberAsks, "retrieval"},
})

func memberTable(list []geminiMember) map[string]*geminiMember {
	t := make(map[string]*geminiMember, len(list))
	for i := range list {
		t[strings.ToLower(list[i].name)] = &list[i]
	}
	return t
}

// walkGemini judges a request of the dialect.
func walkGemini(w *walker) { w.geminiObject(0) }

// geminiObject judges the members of an object of content.
func (w *walker) geminiObject(obj uint32) {
	t := w.t
	t.twice(obj)
	var buf [2 * maxKey]byte
	t.children(obj, func(c uint32) bool {
		key := t.canonical(buf[:0], c)
		m := geminiMembers[string(key)]
		switch {
		case m != nil:
			t.spelled(c, m.name)
			w.geminiMember(c, m)
		case hasURISuffix(key):
			w.geminiURI(c, "url", t.key(c))
			w.geminiValue(c)
		default:
			w.geminiValue(c)
		}
		return true
	})
}

func (w *walker) geminiMember(c uint32, m *geminiMember) {
	switch m.kind {
	case memberOpaque:
	case memberTools:
		w.tools(c, w.geminiTool)
	case memberAsks:
		if isSet(w.t, c, m.tool) {
			w.add(m.tool, "the field "+quote(m.name), m.name, c)
		}
	case memberNever:
		if w.t.nodes[c].kind != kindNull {
			w.never("would send the call elsewhere than policy decided", m.name)
		}
	case memberURI:
		w.geminiURI(c, m.tool, m.name)
		w.geminiValue(c)
	}
}

// never notes what no rule opens.
func (w *walker) never(why, field string) {
	f := finding{never: why, what: "the field " + quote(field), param: field}
	if len(w.found) >= maxFindings {
		w.found[maxFindings-1] = f
		return
	}
	w.found = append(w.found, f)
}

func (w *walker) geminiValue(i uint32) {
	switch t := w.t; t.nodes[i].kind {
	case kindObject:
		w.geminiObject(i)
	case kindArray:
		t.children(i, func(c uint32) bool {
			w.geminiValue(c)
			return true
		})
	}
}

// geminiTool judges one entry: every member that is set is a tool.
func (w *walker) geminiTool(entry uint32) {
	t := w.t
	if t.nodes[entry].kind != kindObject {
		w.add("unknown", "an entry of \"tools\" that is not an object", "tools", entry)
		return
	}
	t.twice(entry)
	var buf [2 * maxKey]byte
	t.children(entry, func(c uint32) bool {
		m := geminiTools[string(t.canonical(buf[:0], c))]
		switch null := t.nodes[c].kind == kindNull; {
		case m == nil && null:
		case m == nil:
			key := t.key(c)
			name := toolName(strings.TrimPrefix(snakeCase(key[:min(len(key), maxIdentifier)]), "_"))
			w.add(name, "the tool "+quote(key)+", which this version does not know and takes for one that", name, c)
		case m.tool == "":
			t.spelled(c, m.name)
			w.geminiValue(c)
		default:
			t.spelled(c, m.name)
			w.geminiSettings(c)
			if !null {
				w.add(m.tool, "the tool "+quote(m.name), m.name, c)
			}
		}
		return true
	})
}

// geminiSettings looks for members that are there under two spellings in what is
// decided as a whole.
func (w *walker) geminiSettings(i uint32) {
	w.t.twice(i)
	w.t.children(i, func(c uint32) bool {
		w.geminiSettings(c)
		return true
	})
}

// hasURISuffix says whether a canonical name is one of a URI.
func hasURISuffix(key []byte) bool {
	for _, end := range []string{"uri", "uris", "url", "urls"} {
		if len(key) >= len(end) && string(key[len(key)-len(end):]) == end {
			return true
		}
	}
	return false
}

// geminiURI judges what the provider would fetch: only data: URLs, which nobody
// fetches, pass. Files that are stored at the provider have a URI of its own host.
func (w *walker) geminiURI(c uint32, tool, name string) {
	t := w.t
	switch t.nodes[c].kind {
	case kindString:
		s, _ := t.text(c)
		switch {
		case s == "" || dataURL(s):
		case tool == "file_url" && storedFile(s):
			w.add("file_id", "the field "+quote(name)+", a file stored at the provider,", name, c)
		default:
			w.add(tool, "fetching the URL in "+quote(name), name, c)
		}
	case kindArray:
		t.children(c, func(e uint32) bool {
			w.geminiURI(e, tool, name)
			return true
		})
	}
}

// storedFile says whether a URI names a file of the account, as the files API does.
func storedFile(uri string) bool {
	return strings.HasPrefix(uri, "files/") || strings.HasPrefix(uri, "https://generativelanguage.googleapis.com/")
}
