// SPDX-License-Identifier: Apache-2.0

package scope

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Subject is a user or a group of the machine as documents name it: by a name
// of its user database, or by number. The zero value is nobody.
type Subject struct {
	Group  bool
	Name   string // "" when Number is set
	ID     uint32
	Number bool // ID was written as such
}

// kinds are the words that stand before a name and before a number.
func kinds(group bool) (name, number string) {
	if group {
		return "group", "gid"
	}
	return "user", "uid"
}

// ParseSubject reads an entry of a list of users, or of groups: NAME, or uid:N
// and gid:N. What a number is called is for the database to say, so a bare
// number is refused: it could be either.
func ParseSubject(s string, group bool) (Subject, error) {
	_, kind := kinds(group)
	_, other := kinds(!group)
	digits, numbered := strings.CutPrefix(s, kind+":")
	switch {
	case numbered:
		return numberedSubject(s, digits, group)
	case strings.HasPrefix(s, other+":"):
		list := map[bool]string{true: "users", false: "groups"}[group]
		return Subject{}, fmt.Errorf("%s belongs under %s; write %s:N here", quoted(s), list, kind)
	}
	return namedSubject(s, s, group)
}

// ParsePerson reads an entry of a list of both: user:NAME, uid:N, group:NAME or
// gid:N. Names and numbers are those of [ParseSubject].
func ParsePerson(s string) (Subject, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch kind {
	case "user", "group":
		return namedSubject(s, rest, kind == "group")
	case "uid", "gid":
		return numberedSubject(s, rest, kind == "gid")
	}
	return Subject{}, fmt.Errorf("%s is none of user:NAME, uid:N, group:NAME, gid:N", quoted(s))
}

func numberedSubject(s, digits string, group bool) (Subject, error) {
	_, kind := kinds(group)
	id, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || id == math.MaxUint32 || digits != strconv.FormatUint(id, 10) { // -1 is nobody
		return Subject{}, fmt.Errorf("%s is not %s:N with a number from 0 to 4294967294", quoted(s), kind)
	}
	return Subject{Group: group, ID: uint32(id), Number: true}, nil
}

func namedSubject(s, name string, group bool) (Subject, error) {
	_, kind := kinds(group)
	switch {
	case name != "" && strings.Trim(name, "0123456789") == "":
		return Subject{}, fmt.Errorf("%s could be a name or a number; write %s:%s for the number", quoted(s), kind, name)
	case !unixName(name):
		return Subject{}, fmt.Errorf("%s is no name of a user or group; one has no space, \":\", \"/\", \",\", \"*\" or control character and at most 256 bytes", quoted(s))
	}
	return Subject{Group: group, Name: name}, nil
}

// unixName refuses what no user database has, and what would look like a
// pattern or a list. "\\", "@", "$", "." and "+" occur in names of domains.
func unixName(s string) bool {
	if s == "" || len(s) > 256 || s[0] == '-' || s[0] == '+' || s[0] == '~' {
		return false
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r >= 0x80 && r <= 0xa0 || r == '�' || strings.ContainsRune(":/,*", r) {
			return false
		}
	}
	return true
}

// quoted is text of a document as an error shows it: not more than can be read.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:most], "?"))
	}
	return fmt.Sprintf("%q", s)
}

// Spell writes the subject as [ParseSubject] reads it.
func (s Subject) Spell() string {
	if !s.Number {
		return s.Name
	}
	_, kind := kinds(s.Group)
	return kind + ":" + strconv.FormatUint(uint64(s.ID), 10)
}

// Is says whether the subject means somebody with that uid and name, or that
// group by number or name. The zero Subject means nobody, and somebody without a
// name is nobody by name.
func (s Subject) Is(id uint32, name string) bool {
	if s.Number {
		return s.ID == id
	}
	return s.Name != "" && s.Name == name
}

// Operator is how every record, list and answer spells who did something at the
// node: uid=1000(alice), or uid=1000 for a uid without a name. The number is the
// kernel's word, the name that of the user database at that time.
func Operator(uid uint32, name string) string {
	out := "uid=" + strconv.FormatUint(uint64(uid), 10)
	if name != "" {
		out += "(" + name + ")"
	}
	return out
}
