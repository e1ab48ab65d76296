// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/scope"
)

// What a rule has besides its target and effect.

// actions are the words of action; those that are no effect oblige.
var actions = []string{"allow", "block", "require-approval", "rate-limit", "pii-scan", "redact"}

// action reads the field of that name. ok is false after a mistake.
func (d *decoder) action(n *yaml.Node, r *Rule) (ok bool) {
	a, ok := d.str(n, "action")
	if !ok {
		return false
	}
	switch a {
	case "allow":
		r.Effect = Allow
	case "block":
		r.Effect = Block
	case "require-approval":
		r.Effect = RequireApproval
	case "rate-limit", "pii-scan", "redact":
		r.NoEffect = true
	case "deny":
		d.fail(n, `did you mean "block"?`, "unknown action %q", a)
		return false
	default:
		d.fail(n, didYouMean(a, actions), "unknown action %s", quote(a))
		return false
	}
	return true
}

// extras reads what rules of every section may have.
func (d *decoder) extras(m fieldMap, r *Rule) {
	for _, name := range []string{"action", "match", "allow", "deny", "for", "risk", "when", "mode", "approval", "rate", "pii", "redact", "audit", "waive"} {
		if k := m.key[name]; k != nil {
			if name == "action" || name == "match" || name == "allow" || name == "deny" {
				k = m.get(name)
			}
			r.fields = append(r.fields, fieldPlace{name, d.line + k.Line, k.Column})
		}
	}
	d.risk(m, r)
	if n := m.get("when"); n != nil {
		r.When = d.when(n, r.Section)
	}
	if n := m.get("mode"); n != nil {
		if s, ok := d.str(n, "mode"); ok && s != "shadow" {
			d.fail(n, "write mode: shadow, or leave it out", "unknown mode %s", quote(s))
		}
		r.Shadow = true
	}
	d.approval(m, r)
	d.duties(m, r)
	d.waive(m, r)
}

func (d *decoder) risk(m fieldMap, r *Rule) {
	n := m.get("risk")
	if n == nil {
		return
	}
	if r.Section != SectionTools {
		d.fail(m.key["risk"], "remove it", "risk is for tools: only their calls have classes")
		return
	}
	d.strs(n, "risk", func(s string) (string, error) {
		c, err := ParseRisk(s)
		r.Risk |= c
		return s, err
	})
}

func (d *decoder) approval(m fieldMap, r *Rule) {
	n := m.get("approval")
	switch {
	case r.Effect != RequireApproval && n != nil:
		d.fail(m.key["approval"], "write action: require-approval, or remove it", "approval is for a rule that requires one")
		return
	case r.Effect != RequireApproval:
		return
	}
	a := &Approval{Quorum: 1, ExpiresAfter: DefaultExpiresAfter}
	r.Approval = a
	if n == nil {
		return
	}
	f, ok := d.mapping(n, objApproval)
	if !ok {
		return
	}
	if n := f.get("approvers"); n != nil && len(n.Content) > MaxApprovers {
		d.fail(n, "name a group", "%d approvers, the limit is %d", len(n.Content), MaxApprovers)
	} else {
		a.Approvers = d.strs(n, "approvers", parseApprover)
	}
	if q := f.get("quorum"); q != nil {
		a.Quorum = int(d.number(q, "quorum", 1, 100))
		if people := a.Approvers; len(people) > 0 && a.Quorum > len(people) && !slices.ContainsFunc(people, isGroup) {
			d.fail(q, "name more approvers or a group", "a quorum of %d and %d approvers: nobody could ever approve", a.Quorum, len(people))
		}
	}
	a.Separate = d.boolean(f.get("separate"), "separate")
	if v := d.duration(f.get("expiresAfter"), "expiresAfter", time.Second, 30*24*time.Hour); v != 0 {
		a.ExpiresAfter = v
	}
	if v := d.duration(f.get("validFor"), "validFor", time.Second, 366*24*time.Hour); v != 0 {
		a.ValidFor = v
	}
}

// isGroup says whether an approver is a group.
func isGroup(approver string) bool {
	p, err := scope.ParsePerson(approver)
	return err == nil && p.Group
}

// parseApprover reads user:NAME, uid:N, group:NAME or gid:N.
func parseApprover(s string) (string, error) {
	if _, err := scope.ParsePerson(s); err != nil {
		return "", fmt.Errorf("an approver: %w", err)
	}
	return s, nil
}

// duties reads what a rule obliges to. An action that is an obligation needs no
// field of its own, but for rate-limit, which needs a number.
func (d *decoder) duties(m fieldMap, r *Rule) {
	action := ""
	if n := m.get("action"); n != nil && r.NoEffect {
		action = n.Value
	}
	if n := m.get("rate"); n != nil {
		r.Rate = d.rate(n, r.Section)
	} else if action == "rate-limit" {
		d.fail(m.node, "for example rate: {requests: 60/m}", "rate-limit needs the field %q", "rate")
	}
	if n := m.get("pii"); n != nil {
		r.PII = d.pii(n)
	} else if action == "pii-scan" {
		r.PII = &PII{In: "log", Out: "log"}
	}
	if n := m.get("redact"); n != nil {
		r.Redact = &Redact{}
		if f, ok := d.mapping(n, objRedact); ok {
			r.Redact.Entities = d.strs(f.get("entities"), "entities", parseEntity)
		}
	} else if action == "redact" {
		r.Redact = &Redact{}
	}
	if n := m.get("audit"); n != nil {
		switch s, _ := d.str(n, "audit"); s {
		case "metadata":
			r.Audit = AuditMetadata
		case "full":
			r.Audit = AuditFull
		case "":
		default:
			d.fail(n, "write metadata or full", "unknown audit level %s", quote(s))
		}
	}
}

var (
	perWho     = []string{"org", "team", "agent", "sandbox"} // from above
	perWhat    = map[Section][]string{SectionEgress: nil, SectionInference: {"model", "provider"}, SectionTools: {"server", "tool"}}
	piiActions = []string{"block", "require-approval", "redact", "mask", "hash", "tokenise", "log"}
)

// oneOf is a check for strs.
func oneOf(what string, list []string) func(string) (string, error) {
	return func(s string) (string, error) {
		if !slices.Contains(list, s) {
			return "", fmt.Errorf("unknown %s %s; %s", what, quote(s), didYouMean(s, list))
		}
		return s, nil
	}
}

func (d *decoder) rate(n *yaml.Node, s Section) *Rate {
	f, ok := d.mapping(n, objRate)
	if !ok {
		return nil
	}
	r := &Rate{}
	if f.get("requests") == nil && f.get("tokens") == nil && f.get("concurrency") == nil {
		d.fail(n, "for example requests: 60/m", "rate has neither requests nor tokens nor concurrency")
	}
	r.Requests, r.RequestsWindow = d.amount(f.get("requests"), "requests")
	r.Tokens, r.TokensWindow = d.amount(f.get("tokens"), "tokens")
	if v := f.get("concurrency"); v != nil {
		r.Concurrency = uint64(d.number(v, "concurrency", 1, 1e6))
	}
	r.Per = d.strs(f.get("per"), "per", oneOf("segment", slices.Concat(perWho, perWhat[s])))
	r.Queue = d.duration(f.get("queue"), "queue", time.Millisecond, 10*time.Minute)
	return r
}

// amount reads "60/m": a number, k or M for thousands or millions, and for how
// long it is.
func (d *decoder) amount(n *yaml.Node, what string) (uint64, time.Duration) {
	s, ok := d.str(n, what)
	if !ok {
		return 0, 0
	}
	number, unit, _ := strings.Cut(s, "/")
	scale := uint64(1)
	for suffix, by := range map[string]uint64{"k": 1e3, "M": 1e6} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, scale = rest, by
		}
	}
	window := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	v, err := strconv.ParseUint(number, 10, 40)
	if err != nil || v == 0 || window == 0 || number[0] == '0' || number[0] == '+' {
		d.fail(n, "for example 60/m or 200k/h", "%s %s is not a number for a time s, m, h or d", what, quote(s))
		return 0, 0
	}
	return v * scale, window
}

// duration reads "15m", "1h30m" or "7d".
func (d *decoder) duration(n *yaml.Node, what string, low, high time.Duration) time.Duration {
	s, ok := d.str(n, what)
	if !ok {
		return 0
	}
	var v time.Duration
	var err error
	if days, isDays := strings.CutSuffix(s, "d"); isDays {
		var k uint64
		k, err = strconv.ParseUint(days, 10, 16)
		v = time.Duration(k) * 24 * time.Hour
	} else {
		v, err = time.ParseDuration(s)
	}
	if err != nil || v < low || v > high {
		d.fail(n, "for example 15m", "%s %s is not a time from %s to %s", what, quote(s), low, high)
		return 0
	}
	return v
}

func (d *decoder) pii(n *yaml.Node) *PII {
	f, ok := d.mapping(n, objPII)
	if !ok {
		return nil
	}
	p := &PII{}
	for _, side := range []struct {
		name string
		to   *string
	}{{"in", &p.In}, {"out", &p.Out}} {
		v := f.get(side.name)
		if v == nil {
			continue
		}
		if s, ok := d.str(v, side.name); ok {
			var err error
			if *side.to, err = oneOf("treatment", piiActions)(s); err != nil {
				d.failText(v, err)
			}
		}
	}
	if f.get("in") == nil && f.get("out") == nil {
		d.fail(n, "for example in: mask", "pii has neither in nor out")
	}
	p.Entities = d.strs(f.get("entities"), "entities", parseEntity)
	return p
}

func parseEntity(s string) (string, error) {
	if !validName(s) {
		return "", fmt.Errorf("%s is not the name of an entity such as email", quote(s))
	}
	return s, nil
}

func (d *decoder) waive(m fieldMap, r *Rule) {
	n := m.get("waive")
	if n == nil {
		return
	}
	d.strs(n, "waive", func(s string) (string, error) {
		i := slices.Index(kindNames, s)
		if i < 0 {
			return "", fmt.Errorf("unknown obligation %s; %s", quote(s), didYouMean(s, kindNames))
		}
		r.Waive |= 1 << i
		return s, nil
	})
	if r.Mandatory {
		d.fail(m.key["waive"], "remove one of them", "a mandatory rule never opens: it cannot waive")
	}
}

func (d *decoder) when(n *yaml.Node, s Section) *When {
	f, ok := d.mapping(n, objWhen)
	if !ok {
		return nil
	}
	w := &When{}
	if v := f.get("expression"); v != nil {
		d.expression(v, s, w)
	}
	d.list(f.get("windows"), "windows", func(c *yaml.Node) {
		if x, ok := d.window(c); ok {
			w.Windows = append(w.Windows, x)
		}
	})
	if v := f.get("windows"); v != nil && len(v.Content) == 0 {
		d.fail(v, "", "windows is an empty list")
	}
	if f.get("expression") == nil && f.get("windows") == nil {
		d.fail(n, "add an expression or windows, or remove it", "when has no condition")
		return nil
	}
	return w
}

// expression checks CEL and points at its mistakes.
func (d *decoder) expression(n *yaml.Node, s Section, w *When) {
	text, ok := d.str(n, "expression")
	if !ok {
		return
	}
	if len(text) > MaxExpression {
		d.fail(n, "", "the expression is longer than %d bytes", MaxExpression)
		return
	}
	w.Expression = text
	x, err := compileExpression(s, text)
	var mistakes ExpressionErrors
	switch {
	case errors.As(err, &mistakes):
		for i := range mistakes {
			d.failInside(n, s, text, &mistakes[i])
		}
	case err != nil:
		d.fail(n, "", "expression %s: %v", quote(text), err)
	default:
		w.Request, w.Clock = x.Names("method") || x.Names("path"), x.Names("now")
	}
}

// failInside points at a place in an expression.
func (d *decoder) failInside(n *yaml.Node, s Section, text string, e *ExpressionError) {
	at := *n
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		at.Line += e.Line
		at.Column = 1
	} else if e.Line == 1 {
		at.Column += e.Column
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			at.Column++
		}
	}
	var names []string
	for _, v := range Variables(s) {
		names = append(names, v.Name)
	}
	msg, _, _ := strings.Cut(e.Message, "\n")
	d.fail(&at, "variables here: "+strings.Join(names, ", "), "expression %s: %s", quote(text), msg)
}

func (d *decoder) window(n *yaml.Node) (w Window, ok bool) {
	f, ok := d.mapping(n, objWindow)
	if !ok || f.get("from") == nil || f.get("to") == nil {
		return w, false
	}
	d.strs(f.get("days"), "days", func(s string) (string, error) {
		i := slices.Index(dayNames, s)
		if i < 0 {
			return "", fmt.Errorf("unknown day %s; %s", quote(s), didYouMean(s, dayNames))
		}
		w.Days |= 1 << i
		return s, nil
	})
	from, okFrom := d.clock(f.get("from"), "from", 24*60-1)
	to, okTo := d.clock(f.get("to"), "to", 24*60)
	if okFrom && okTo && from == to {
		d.fail(f.get("to"), "for the whole day write from: \"00:00\", to: \"24:00\"", "a window from %s to %s is empty", quote(f.get("from").Value), quote(f.get("to").Value))
	}
	w.From, w.To, w.Zone = from, to, "UTC"
	at := n
	if z := f.get("zone"); z != nil {
		at = z
		if w.Zone, ok = d.str(z, "zone"); !ok {
			return w, false
		}
	}
	if err := w.load(); err != nil {
		d.failText(at, err)
		return w, false
	}
	return w, okFrom && okTo
}

func (d *decoder) clock(n *yaml.Node, what string, most int) (int, bool) {
	s, ok := d.str(n, what)
	if !ok {
		return 0, false
	}
	v, err := parseClock(s, most)
	if err != nil {
		d.fail(n, "", "%s: %v", what, err)
	}
	return v, err == nil
}

// digestRule stands for a rule's own text: what it says, not how it is laid out.
func digestRule(n *yaml.Node, doc *Document, r *Rule) [sha256.Size]byte {
	h := sha256.New()
	for _, s := range []string{doc.Scope.String(), doc.Name, r.ID} {
		io.WriteString(h, strconv.Quote(s)) // a hash writes always
	}
	digestNode(h, n)
	return [sha256.Size]byte(h.Sum(nil))
}

func digestNode(h hash.Hash, n *yaml.Node) {
	fmt.Fprintf(h, "%d %q %q %d\n", n.Kind, n.ShortTag(), n.Value, len(n.Content))
	for _, c := range n.Content {
		digestNode(h, c)
	}
}
