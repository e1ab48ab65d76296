// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/policy"
)

var errBadModel = errors.New("the name that it maps the model to cannot stand in a path")

// pathTo is the path as a candidate gets it: its name of the model is in it where the
// agent's was.
func (x *exchange) pathTo(c *candidate) (string, error) {
	if !x.route.pathModel || c.upstream == x.asked.model {
		return x.path, nil
	}
	if !plainSegment(c.upstream) || strings.Contains(c.upstream, ":") || c.upstream == "." || c.upstream == ".." {
		return "", errBadModel
	}
	before, _, after := geminiModel(x.path)
	return before + c.upstream + after, nil
}

// modelEdits change what a body says of the model of its path.
func (x *exchange) modelEdits(upstream string) (edits []edit) {
	for _, i := range x.asked.again {
		name := upstream
		if old, _ := x.tape.text(i); strings.HasPrefix(old, "models/") {
			name = "models/" + upstream
		}
		edits = append(edits, x.tape.replace(i, mustJSON(name)))
	}
	return edits
}

// geminiOutput is where the dialect says how many tokens may come out: a member inside
// of another one.
const geminiOutput = "generationConfig.maxOutputTokens"

// named finds the member of an object by its canonical name, 0 if it has none.
func (t *tape) named(obj uint32, canonical string) (at uint32) {
	var buf [2 * maxKey]byte
	t.children(obj, func(c uint32) bool {
		if string(t.canonical(buf[:0], c)) == canonical {
			at = c
		}
		return at == 0
	})
	return at
}

// geminiConfig is a member of generationConfig by its canonical name, 0 if there is none.
func (t *tape) geminiConfig(canonical string) uint32 {
	if i := t.named(0, "generationconfig"); i != 0 {
		return t.named(i, canonical)
	}
	return 0
}

// boundGemini is bound for geminiOutput.
func (t *tape) boundGemini(n uint64) []edit {
	value := strconv.AppendUint(nil, n, 10)
	member := append([]byte(`"maxOutputTokens":`), value...)
	config := t.named(0, "generationconfig")
	switch at := t.geminiConfig("maxoutputtokens"); {
	case at != 0 && t.count(at) > 0 && t.count(at) <= n:
		return nil
	case at != 0:
		return []edit{t.replace(at, value)}
	case config == 0:
		return []edit{t.insert(0, `"generationConfig":{`+string(member)+`}`)}
	case t.nodes[config].kind != kindObject:
		return []edit{t.replace(config, append(append([]byte{'{'}, member...), '}'))}
	}
	return []edit{t.insert(config, string(member))}
}

// geminiFeatures are what a request of the dialect needs of a model.
func (t *tape) geminiFeatures() (f policy.Features) {
	if i := t.named(0, "tools"); i != 0 && t.hasChildren(i) {
		f |= policy.FeatureTools
	}
	for _, k := range []string{"responseschema", "responsejsonschema"} {
		if i := t.geminiConfig(k); i != 0 && t.nodes[i].kind != kindNull {
			f |= policy.FeatureStructured
		}
	}
	for i := range t.nodes {
		n := &t.nodes[i]
		if key := t.src[n.keyStart:n.keyEnd]; n.kind != kindString || string(key) != "mimeType" && string(key) != "mime_type" {
			continue
		}
		if v := t.src[n.start:n.end]; bytes.HasPrefix(v, []byte(`"image/`)) || bytes.HasPrefix(v, []byte(`"video/`)) {
			f |= policy.FeatureVision
		}
	}
	return f
}
