// SPDX-License-Identifier: Apache-2.0

package landlock

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Type is the kind of a record: the kernel's message number.
type Type uint16

// Record types that Parse reads.
const (
	TypeAccess Type = 1423 // AUDIT_LANDLOCK_ACCESS: something was denied
	TypeDomain Type = 1424 // AUDIT_LANDLOCK_DOMAIN: a domain was created or is gone
)

// Record is one audit record of Landlock. All texts are as the kernel gave
// them, decoded, and may hold any byte: a sandbox chooses them.
type Record struct {
	Type   Type
	Time   time.Time
	Serial uint64 // records of one event share it
	Domain uint64 // id of the Landlock domain

	// Access.
	Blockers   []string // "fs.read_file", "net.connect_tcp", "scope.signal", "ptrace" ...
	Path       string   // file, or the abstract socket's path
	Dev        string
	Ino        uint64
	TargetPID  uint32 // process that was to be signalled or traced
	TargetComm string
	Addr       string // address of a network denial, without its port
	Port       uint16

	// Domain.
	Status  string // "allocated" or "deallocated"
	Mode    string // "enforcing"
	PID     uint32 // process that created the domain
	UID     uint32
	Exe     string
	Comm    string
	Denials uint64 // at deallocation: how many denials there were
}

// ErrRecord is returned for bytes that are not a Landlock record as the kernel
// writes it.
var ErrRecord = errors.New("landlock: malformed audit record")

const (
	maxRecord   = 16 << 10
	maxBlockers = 64
)

// Parse reads the payload of one audit message, for example
//
//	audit(1729738800.268:30): domain=195ba459b blockers=fs.refer path="/usr/bin" dev="vda2" ino=351
//
// Fields that it does not know are skipped; a missing domain, a broken quote, a
// broken number in a known field or a field that comes twice is an error. The
// payload may end in NUL bytes.
func Parse(typ Type, payload []byte) (Record, error) {
	r := Record{Type: typ}
	if (typ != TypeAccess && typ != TypeDomain) || len(payload) > maxRecord {
		return r, ErrRecord
	}
	s := string(bytes.TrimRight(payload, "\x00\n "))
	s, ok := strings.CutPrefix(s, "audit(")
	stamp, s, ok2 := strings.Cut(s, "):")
	if !ok || !ok2 || !r.stamp(stamp) {
		return r, ErrRecord
	}
	seen := map[string]bool{}
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		var f rawField
		if f, s, ok = cutField(s); !ok || seen[f.key] {
			return r, ErrRecord
		}
		seen[f.key] = true
		if !r.set(f) {
			return r, ErrRecord
		}
	}
	switch {
	case !seen["domain"], typ == TypeAccess && len(r.Blockers) == 0, typ == TypeDomain && r.Status == "":
		return r, ErrRecord
	}
	return r, nil
}

// stamp reads "seconds.milliseconds:serial".
func (r *Record) stamp(s string) bool {
	at, serial, ok := strings.Cut(s, ":")
	sec, ms, ok2 := strings.Cut(at, ".")
	secs, err := strconv.ParseUint(sec, 10, 40)
	millis, err2 := strconv.ParseUint(ms, 10, 16)
	n, err3 := strconv.ParseUint(serial, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil || err3 != nil || millis > 999 {
		return false
	}
	r.Time = time.Unix(int64(secs), int64(millis)*1e6).UTC()
	r.Serial = n
	return true
}

// rawField is one key=value; quoted says that the value stood in quotes.
type rawField struct {
	key, value string
	quoted     bool
}

// cutField reads one field. A quoted value ends at the next quote: the kernel
// hex-encodes, without quotes, every text that holds a quote, a space or a
// control character.
func cutField(s string) (f rawField, rest string, ok bool) {
	f.key, rest, ok = strings.Cut(s, "=")
	if !ok || f.key == "" || strings.ContainsAny(f.key, " \"") {
		return f, "", false
	}
	if v, quoted := strings.CutPrefix(rest, `"`); quoted {
		f.quoted = true
		f.value, rest, ok = strings.Cut(v, `"`)
		return f, rest, ok && (rest == "" || rest[0] == ' ')
	}
	f.value, rest, _ = strings.Cut(rest, " ")
	return f, rest, !strings.Contains(f.value, `"`)
}

func (r *Record) set(f rawField) (ok bool) {
	switch f.key {
	case "domain":
		return number(&r.Domain, f.value, 16)
	case "blockers":
		r.Blockers = strings.Split(f.value, ",")
		return f.value != "" && len(r.Blockers) <= maxBlockers
	case "path":
		r.Path, ok = untrusted(f)
	case "dev":
		r.Dev, ok = untrusted(f)
	case "ino":
		return number(&r.Ino, f.value, 10)
	case "opid":
		return number(&r.TargetPID, f.value, 10)
	case "ocomm":
		r.TargetComm, ok = untrusted(f)
	case "saddr", "daddr":
		r.Addr = f.value
		return true
	case "src", "dest":
		return number(&r.Port, f.value, 10)
	case "status":
		r.Status = f.value
		return f.value == "allocated" || f.value == "deallocated"
	case "mode":
		r.Mode = f.value
		return true
	case "pid":
		return number(&r.PID, f.value, 10)
	case "uid":
		return number(&r.UID, f.value, 10)
	case "exe":
		r.Exe, ok = untrusted(f)
	case "comm":
		r.Comm, ok = untrusted(f)
	case "denials":
		return number(&r.Denials, f.value, 10)
	default:
		return true
	}
	return ok
}

func number[T uint16 | uint32 | uint64](to *T, s string, base int) bool {
	v, err := strconv.ParseUint(s, base, 64)
	*to = T(v)
	return err == nil && uint64(*to) == v
}

// untrusted decodes a text: quoted as it is, in parentheses as a word of the
// kernel ("(null)"), else hexadecimal.
func untrusted(f rawField) (string, bool) {
	if f.quoted || strings.HasPrefix(f.value, "(") {
		return f.value, true
	}
	b, err := hex.DecodeString(f.value)
	if err != nil || len(b) == 0 {
		return "", false
	}
	return strings.TrimRight(string(b), "\x00"), true
}
