// SPDX-License-Identifier: Apache-2.0

package workspace

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// Setting is one key of a git configuration file. Key is in git's canonical
// form: section and variable in lower case, subsection as written.
type Setting struct {
	Key   string
	Value string
	Bare  bool // "key" without "=": git reads it as true

	start, end int // bytes of the file, without the line end
}

// ConfigError says where a file stops being a git configuration.
type ConfigError struct {
	Line int
	Msg  string
}

func (e *ConfigError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Msg) }

// ParseConfig reads a git configuration file as git does (config.c, git 2.39
// and later): same escapes, continuation lines, comments and quoting. It is
// stricter in one thing: a NUL byte is an error. Where git would stop with an
// error this does too, with a *ConfigError, and returns no settings.
func ParseConfig(data []byte) ([]Setting, error) {
	p := &configParser{data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), line: 1}
	p.skipped = len(data) - len(p.data)
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return nil, &ConfigError{1 + bytes.Count(data[:i], []byte("\n")), "NUL byte"}
	}
	if err := p.file(); err != nil {
		return nil, err
	}
	return p.settings, nil
}

type configParser struct {
	data     []byte
	pos      int
	line     int
	skipped  int // byte order mark
	eof      bool
	section  string // with its final dot
	settings []Setting
}

func (p *configParser) fail(format string, args ...any) error {
	return &ConfigError{p.line, fmt.Sprintf(format, args...)}
}

// next returns the next character, "\n" for "\r\n", and "\n" once more at the
// end of the file.
func (p *configParser) next() byte {
	if p.pos >= len(p.data) {
		p.eof = true
		return '\n'
	}
	c := p.data[p.pos]
	p.pos++
	if c == '\r' && p.pos < len(p.data) && p.data[p.pos] == '\n' {
		p.pos++
		c = '\n'
	}
	if c == '\n' {
		p.line++
	}
	return c
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isAlpha(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isKey(c byte) bool   { return isAlpha(c) || c >= '0' && c <= '9' || c == '-' }

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

func (p *configParser) file() error {
	comment := false
	for {
		start := p.pos
		c := p.next()
		switch {
		case c == '\n':
			if p.eof {
				return nil
			}
			comment = false
		case comment || isSpace(c):
		case c == '#' || c == ';':
			comment = true
		case c == '[':
			if err := p.header(); err != nil {
				return err
			}
		case !isAlpha(c):
			return p.fail("unexpected %q", c)
		case p.section == "":
			return p.fail("key before the first section")
		default:
			if err := p.setting(start, c); err != nil {
				return err
			}
		}
	}
}

// header reads a section header after its "[".
func (p *configParser) header() error {
	var name strings.Builder
	for {
		c := p.next()
		switch {
		case p.eof:
			return p.fail("section header without end")
		case c == ']':
			if name.Len() == 0 {
				return p.fail("section without a name")
			}
			p.section = name.String() + "."
			return nil
		case isSpace(c):
			if name.Len() == 0 {
				return p.fail("section without a name")
			}
			return p.subsection(name.String(), c)
		case !isKey(c) && c != '.':
			return p.fail("unexpected %q in a section name", c)
		}
		name.WriteByte(lower(c))
	}
}

// subsection reads ` "name"]`; c is the space that began it.
func (p *configParser) subsection(section string, c byte) error {
	for isSpace(c) {
		if c == '\n' {
			return p.fail("line end in a section header")
		}
		c = p.next()
	}
	if c != '"' {
		return p.fail("subsection without quotes")
	}
	var sub strings.Builder
	for {
		c = p.next()
		if c == '\n' {
			return p.fail("line end in a subsection")
		}
		if c == '"' {
			break
		}
		if c == '\\' {
			if c = p.next(); c == '\n' {
				return p.fail("line end in a subsection")
			}
		}
		sub.WriteByte(c)
	}
	if p.next() != ']' {
		return p.fail("section header without end")
	}
	p.section = section + "." + sub.String() + "."
	return nil
}

// setting reads a key that begins with first, and its value.
func (p *configParser) setting(start int, first byte) error {
	name := []byte{lower(first)}
	c := p.next()
	for ; isKey(c) && !p.eof; c = p.next() {
		name = append(name, lower(c))
	}
	for c == ' ' || c == '\t' {
		c = p.next()
	}
	s := Setting{Key: p.section + string(name), start: start + p.skipped}
	switch c {
	case '\n':
		s.Bare = true
	case '=':
		v, err := p.value()
		if err != nil {
			return err
		}
		s.Value = v
	default:
		return p.fail("unexpected %q after a key", c)
	}
	end := p.pos
	if !p.eof { // the line end is not part of it
		end--
		if end > 0 && p.data[end-1] == '\r' {
			end--
		}
	}
	s.end = end + p.skipped
	p.settings = append(p.settings, s)
	return nil
}

func (p *configParser) value() (string, error) {
	var v []byte
	quote, comment, spaces := false, false, 0
	for {
		c := p.next()
		switch {
		case c == '\n' && quote && !comment:
			return "", p.fail("line end in quotes")
		case c == '\n':
			return string(v), nil
		case comment:
			continue
		case isSpace(c) && !quote:
			if len(v) > 0 {
				spaces++
			}
			continue
		case !quote && (c == '#' || c == ';'):
			comment = true
			continue
		}
		for ; spaces > 0; spaces-- {
			v = append(v, ' ')
		}
		switch c {
		case '"':
			quote = !quote
		case '\\':
			e := p.next()
			if e == '\n' { // also at the end of the file, as git does
				continue
			}
			i := strings.IndexByte(`tbn\"`, e)
			if i < 0 {
				return "", p.fail("unknown escape \\%c", e)
			}
			v = append(v, "\t\b\n\\\""[i])
		default:
			v = append(v, c)
		}
	}
}

// commentOut returns data with the given settings turned into comments. It
// fails when the result does not mean exactly "data without them".
func commentOut(data []byte, all []Setting, drop func(Setting) bool) ([]byte, error) {
	var out bytes.Buffer
	var want []Setting
	last := 0
	for _, s := range all {
		if !drop(s) {
			want = append(want, s)
			continue
		}
		out.Write(data[last:s.start])
		out.WriteString("\n# quarantined by ringfence:")
		for line := range bytes.SplitSeq(data[s.start:s.end], []byte("\n")) {
			out.WriteString("\n#   ")
			out.Write(line)
		}
		out.WriteByte('\n')
		last = s.end
	}
	out.Write(data[last:])
	got, err := ParseConfig(out.Bytes())
	if err != nil {
		return nil, fmt.Errorf("the edited file does not parse: %w", err)
	}
	if !slices.EqualFunc(got, want, func(a, b Setting) bool { return a.Key == b.Key && a.Value == b.Value && a.Bare == b.Bare }) {
		return nil, fmt.Errorf("the edited file means something else")
	}
	return out.Bytes(), nil
}
