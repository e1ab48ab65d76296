// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"
)

func mediaType(resp *http.Response) string {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return mt
}

// ownError turns a platform's error into the dialect's: agents do not know that there
// is a platform. One that is in the dialect's form already stays as it is. code is the
// platform's name for it, "" if its body has that.
func (o *outbound) ownError(resp *http.Response, code string) {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	src := resp.Body
	if err != nil || !gjson.ValidBytes(head) {
		resp.Body = readCloser{io.MultiReader(bytes.NewReader(head), after(src, err)), src}
		return
	}
	doc := gjson.ParseBytes(head)
	if doc.IsArray() { // as Google has it behind some methods
		doc = doc.Get("0")
	}
	if o.d.name == "anthropic" && doc.Get("type").String() == "error" || o.d.name == geminiName && doc.Get("error.code").Exists() {
		head = []byte(doc.Raw)
	} else {
		message := firstOf(doc, "error.message", "message", "Message")
		if code == "" {
			code = firstOf(doc, "error.status", "error.code", "code", "__type")
		}
		if message == "" {
			message = "the provider refused the call"
		}
		head = o.d.errorBody(&refusal{code: code}, resp.StatusCode, message)
	}
	resp.Header.Set("Content-Type", "application/json")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	resp.Body = readCloser{bytes.NewReader(head), src}
}

func after(src io.Reader, err error) io.Reader {
	if err != nil {
		return failing{err}
	}
	return src
}

func firstOf(doc gjson.Result, paths ...string) string {
	for _, p := range paths {
		if s := strings.TrimSpace(doc.Get(p).String()); s != "" {
			return s
		}
	}
	return ""
}

type readCloser struct {
	io.Reader
	io.Closer
}
