// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// MaxFile is the largest input of [Parse] in bytes.
const MaxFile = 64 << 20

// Parse reads a file of YAML documents separated by "---". It returns the
// documents without mistakes and every mistake of the others; one bad document
// does not hide the next. What this version does not enforce is a mistake, see
// [Unenforced]. file is only used in positions. A caller that puts documents
// into force must keep the last good form of a document that is now missing:
// dropping a document also drops what it denied.
func Parse(file string, data []byte) ([]Document, []Problem) { return parse(file, data, false) }

// ParseWhole is Parse for documents that do not come into force: it also takes
// what this version does not enforce.
func ParseWhole(file string, data []byte) ([]Document, []Problem) { return parse(file, data, true) }

func parse(file string, data []byte, whole bool) ([]Document, []Problem) {
	var docs []Document
	problems := eachDocument(file, data, func(d *decoder, n *yaml.Node, text []byte) {
		doc, ok := d.document(n)
		if !whole {
			d.problems = append(d.problems, Unenforced(&doc)...)
		}
		if ok && len(d.problems) == 0 {
			doc.Raw = text
			docs = append(docs, doc)
		}
	})
	return docs, problems
}

// eachDocument hands every YAML document of a file to read, with a decoder of
// its own and the text of its part, and gathers what they find wrong.
func eachDocument(file string, data []byte, read func(*decoder, *yaml.Node, []byte)) []Problem {
	if len(data) > MaxFile {
		return []Problem{{File: file, Line: 1, Col: 1, Msg: "the file is larger than 64 MiB"}}
	}
	var problems []Problem
	for _, part := range split(data) {
		problems = append(problems, eachOfPart(file, part, read)...)
	}
	sortProblems(problems)
	return problems
}

type part struct {
	line int // lines before it
	text []byte
}

// split cuts at lines that are "---": a document separator is the only thing
// such a line can be in YAML. Text behind a separator stays with its document.
func split(data []byte) []part {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var parts []part
	start, startLine, line := 0, 0, 0
	for off := 0; off < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[off:], '\n'); i >= 0 {
			end = off + i + 1
		}
		l := bytes.TrimRight(data[off:end], "\r\n")
		if bytes.HasPrefix(l, []byte("---")) && (len(l) == 3 || l[3] == ' ' || l[3] == '\t') {
			parts = append(parts, part{startLine, data[start:off]})
			if len(bytes.TrimRight(l[3:], " \t")) == 0 {
				start, startLine = end, line+1
			} else {
				start, startLine = off, line
			}
		}
		off = end
	}
	return append(parts, part{startLine, data[start:]})
}

var yamlLine = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
})

func eachOfPart(file string, p part, read func(*decoder, *yaml.Node, []byte)) (problems []Problem) {
	dec := yaml.NewDecoder(bytes.NewReader(p.text))
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			return problems
		}
		if err != nil {
			line := 1
			msg := err.Error()
			if m := yamlLine().FindStringSubmatch(msg); m != nil {
				msg = msg[len(m[0]):]
				if n, err := strconv.Atoi(m[1]); err == nil {
					line = n
				}
			}
			return append(problems, Problem{File: file, Line: p.line + line, Col: 1, Msg: "not valid YAML: " + msg})
		}
		if len(root.Content) == 0 || root.Content[0].Kind == yaml.ScalarNode && root.Content[0].ShortTag() == "!!null" {
			continue // only comments
		}
		d := &decoder{file: file, line: p.line}
		read(d, root.Content[0], p.text)
		problems = append(problems, d.problems...)
	}
}

var kinds = []string{KindPolicy, KindProfile, KindProvider, KindToolServer, KindAccess}

func (d *decoder) document(n *yaml.Node) (Document, bool) {
	if !d.plainTree(n, 0) {
		return Document{}, false
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "it begins with apiVersion: "+APIVersion, "a document must be a mapping, found %s %s", kindName(n), quote(n.Value))
		return Document{}, false
	}
	doc := Document{File: d.file, Line: d.line + n.Line, Scope: scope.All()}
	kind := valueOf(n, "kind")
	if kind == nil {
		d.fail(n, "kind: "+strings.Join(kinds, ", kind: "), `a document needs the field "kind"`)
		return doc, false
	}
	var ok bool
	if doc.Kind, ok = d.str(kind, "kind"); !ok {
		return doc, false
	}
	var m fieldMap
	switch doc.Kind {
	case KindPolicy:
		m, _ = d.mapping(n, objPolicy)
		d.header(m, &doc)
		doc.Policy = d.policy(m, &doc)
	case KindProfile:
		m, _ = d.mapping(n, objProfile)
		d.header(m, &doc)
		doc.Profile = d.profile(m, &doc)
	case KindProvider:
		m, _ = d.mapping(n, objProvider)
		d.header(m, &doc)
		doc.Provider = d.provider(m, &doc)
	case KindTest:
		d.fail(kind, "run it with ringfence policy test", "a %s is never in force", KindTest)
		return doc, false
	case KindAccess:
		m, _ = d.mapping(n, objAccess)
		d.header(m, &doc)
		doc.Access = d.access(m, &doc)
	case KindToolServer:
		m, _ = d.mapping(n, objToolServer)
		d.header(m, &doc)
		doc.ToolServer = d.toolServer(m, &doc)
	default:
		d.fail(kind, didYouMean(doc.Kind, kinds), "unknown kind %s", quote(doc.Kind))
		return doc, false
	}
	return doc, true
}

// valueOf finds a field before the kind, and so the table, is known.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key && n.Content[i].Kind == yaml.ScalarNode {
			return n.Content[i+1]
		}
	}
	return nil
}

// header reads apiVersion, metadata and scope.
func (d *decoder) header(m fieldMap, doc *Document) {
	if n := m.get("apiVersion"); n != nil {
		if v, ok := d.str(n, "apiVersion"); ok && v != APIVersion {
			d.fail(n, "write "+APIVersion, "apiVersion %s is not supported", quote(v))
		}
	}
	if n := m.get("metadata"); n != nil {
		if mm, ok := d.mapping(n, objMetadata); ok {
			if doc.Name = d.name(mm.get("name"), "metadata.name"); doc.Name == Builtin().Ref.Doc {
				d.fail(mm.get("name"), "use another one", "the name %s is that of what is in no document", quote(doc.Name))
			}
			doc.Description = d.text(mm.get("description"), "metadata.description", 4096)
		}
	}
	if n := m.get("scope"); n != nil {
		if sel, ok := d.principals(n, "scope"); ok {
			doc.Scope = sel
		}
	}
}
