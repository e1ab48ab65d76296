// SPDX-License-Identifier: Apache-2.0

package translate

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// rebuilt is the value as encoding/json has it, made of our own reading.
func rebuilt(t *testing.T, v val) any {
	switch v.kind() {
	case kindString:
		return string(v.text())
	case kindNumber:
		f, ok := v.float()
		if !ok {
			t.Fatal("encoding/json reads this number, and we do not")
		}
		return f
	case kindBool:
		return v.truth()
	case kindArray:
		out := []any{}
		for e := range v.kids() {
			out = append(out, rebuilt(t, e))
		}
		return out
	case kindObject:
		out := map[string]any{}
		for m := range v.kids() {
			out[string(m.key())] = rebuilt(t, m)
		}
		return out
	}
	return nil
}

// FuzzDocument compares our reading of JSON, and our writing of strings, with
// encoding/json: the same is taken, but for keys that are there twice, and
// depth, and bytes that are no UTF-8.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-0.5e+3,true,false,null,"x"],"b":{}}`, `"\ud83d\ude00 \u00e9 \"\\\/\b\f\n\r\t"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\ud83dx\ud83d\ud83d\ude00"`,
		"\"\u007f\u2028\U0001F44B\"", `{"a":1,"\u0061":2}`, `{"a":1,"a":2}`, ` [ 1 , 2 ] `, `01`, `-`, `1.`, `1e`, `.5`, `[1,]`, `{"a":1,}`, `"\u12g4"`, `tru`, `nulll`, "\"\x00\"", `""`,
		`{` + strings.Repeat(`"k":1,`, 20) + `"l":2}`, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"\u0070":1}`,
		`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"r":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var want any
		valid := json.Valid(src)
		if valid {
			if err := json.Unmarshal(src, &want); err != nil {
				return // a number that no float holds
			}
		}
		var d document
		root, err := d.parse(src)
		var s *syntaxError
		switch {
		case err == nil && !valid:
			t.Fatalf("taken: %q", src)
		case err != nil && !errors.As(err, &s):
			t.Fatal(err)
		case err != nil && valid && utf8.Valid(src) && !strings.Contains(s.why, "twice") && !strings.Contains(s.why, "nested") && !strings.Contains(s.why, "too many"):
			t.Fatalf("not taken: %q: %v", src, err)
		case err == nil:
			if got := rebuilt(t, root); !reflect.DeepEqual(got, want) {
				t.Fatalf("%q: read %#v, want %#v", src, got, want)
			}
		}
		var back string
		if err := json.Unmarshal(append(quote([]byte{'"'}, src), '"'), &back); err != nil || back != strings.ToValidUTF8(string(src), "\ufffd") && utf8.Valid(src) {
			t.Fatalf("%q was written as %q: %v", src, back, err)
		}
	})
}

// TestAKeyTwiceIsNeverTaken, however it is written and however many there are.
func TestAKeyTwiceIsNeverTaken(t *testing.T) {
	var many strings.Builder
	for i := range 40 {
		many.WriteString(`"k` + strings.Repeat("x", i) + `":1,`)
	}
	for _, c := range []struct {
		src   string
		taken bool
	}{
		{`{"a":1,"b":1}`, true}, {`{"a":1,"A":1}`, true}, {`{"a":{"a":1}}`, true},
		{`{"a":1,"a":1}`, false}, {`{"a":1,"\u0061":1}`, false}, {`{"\u0061":1,"a":1}`, false}, {`[{"a":{"b":1,"b":1}}]`, false},
		{`{` + many.String() + `"z":1}`, true}, {`{` + many.String() + `"kxx":1}`, false}, {`{` + many.String() + `"z":1,"z":2}`, false}, {`{` + many.String() + `"k\u0078":1}`, false},
	} {
		var d document
		if _, err := d.parse([]byte(c.src)); (err == nil) != c.taken {
			t.Errorf("%s: %v", c.src, err)
		}
		d.twins = true
		if _, err := d.parse([]byte(c.src)); err != nil {
			t.Errorf("%s: %v", c.src, err)
		}
	}
}
