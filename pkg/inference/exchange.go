// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ringfence/ringfence/pkg/event"
	"github.com/ringfence/ringfence/pkg/policy"
)

// exchange is one request on its way through: judged first, then answered.
type exchange struct {
	r     *Redirector
	c     *Call
	d     *dialect
	w     http.ResponseWriter
	in    *http.Request
	start time.Time // by the wall clock
	begun time.Time // for how long it takes
	rec   *record
	trace trace

	route *route
	path  string // raw path, matched
	query string // raw query, admitted
	body  []byte // as the client sent it; nil without one
	held  int64  // bytes counted in r.buffered
	tape  tape
	asked asked

	way     *policy.Route    // of the model; nil: there is none
	tierAt  int              // which of the way's tiers the request is of
	list    []candidate      // who is asked, in order
	trial   bool             // the trial provider answers
	prov    *policy.Provider // who answers, or is asked first
	served  string           // model name sent to that one
	tries   []try            // what was asked and did not answer
	chained bool             // a chain of the way has been asked
	people  bool             // they let a tool of the provider pass, of the model that was to be served then
	stalled bool             // the client has not read for longer than its provider may be silent
	verdict policy.Decision  // on the model
	paid    receipts         // for the request as a whole
	most    uint64           // tokens of output that this lets come; 0 = as asked
	talk    [16]byte         // the conversation, with talks
	talks   bool
}

// asked is what the body asks for, as far as Ringfence looks.
type asked struct {
	model        string
	modelNode    uint32   // 0: not in the body
	again        []uint32 // where the body repeats the model of the path
	stream       bool
	includeUsage bool
}

// target is the raw request target in origin form.
func target(req *http.Request) string {
	if strings.HasPrefix(req.RequestURI, "/") {
		return req.RequestURI
	}
	if req.RequestURI == "" || strings.Contains(req.RequestURI, "://") {
		if req.URL.RawQuery != "" || req.URL.ForceQuery {
			return req.URL.EscapedPath() + "?" + req.URL.RawQuery
		}
		return req.URL.EscapedPath()
	}
	return req.RequestURI
}

// judge decides everything that is decided before a byte leaves. It returns
// nil when the call may be answered.
func (x *exchange) judge() *refusal {
	if x.in.Header.Get("Upgrade") != "" || x.in.Method == http.MethodConnect {
		return denied("upgrade", "WebSocket and other upgrades are not offered on a provider's host", "Use the HTTP form of the API")
	}
	raw := x.ownTarget(target(x.in))
	rt, query, ref := matchTarget(x.d, x.in.Method, raw)
	if ref != nil {
		return ref
	}
	x.route, x.query = rt, query
	x.path, _, _ = strings.Cut(raw, "?")
	x.rec.ev.Operation, x.rec.ev.Activity = rt.op, rt.op
	if ref := x.readBody(); ref != nil {
		return ref
	}
	if rt.body {
		if ref := x.parseBody(); ref != nil {
			return ref
		}
	}
	return x.decide()
}

// verdicts are what policy says about one request: about its model, and about each
// thing that the provider would do for it.
type verdicts struct {
	model policy.Decision
	found []finding
	tools []policy.Decision // of each of those
}

// decide asks policy, and people where it says so, and picks who answers.
func (x *exchange) decide() *refusal {
	if x.c.View == nil || x.c.Snapshot == nil {
		return denied("no-policy", "no policy is loaded for this sandbox", "Try again when the node's daemon is up")
	}
	v := verdicts{}
	x.plan(&v)
	x.pick()
	x.inspect(&v)
	ref := x.variant()
	if ref == nil {
		ref = x.denied(&v, policy.Block)
	}
	if ref == nil && x.c.Approve != nil && v.asks() {
		ref = x.approve(&v)
	}
	if ref == nil {
		ref = x.denied(&v, policy.RequireApproval)
	}
	if ref == nil {
		x.people = v.peopleTools()
		ref = x.settle(&v)
	}
	if ref != nil {
		return ref
	}
	x.pick()
	x.verdict = v.model
	if x.route.model {
		x.rec.decided(&v.model)
		x.rec.ev.ModelServed = x.served
	}
	for i := range v.tools {
		if d := &v.tools[i]; d.ReasonCode == codeApproved || x.rec.ev.ReasonCode != codeApproved {
			x.rec.decided(d) // what people decided is not covered by what nobody had to
		}
	}
	x.rec.ev.Verdict = event.Allowed
	return nil
}

// pick notes who is asked first, and as which model.
func (x *exchange) pick() {
	x.prov, x.served = nil, x.asked.model
	switch {
	case x.trial:
		x.rec.ev.Provider, x.rec.ev.Credential = trialName, "trial"
	case len(x.list) > 0:
		first := slices.IndexFunc(x.list, func(c candidate) bool { return c.decision.Effect == policy.Allow })
		c := &x.list[max(first, 0)]
		x.prov, x.rec.ev.Provider = c.prov, c.prov.Name
		if x.route.model {
			x.served = c.upstream
		}
	}
}

// inspect finds everything that the provider would do on its side, and asks policy
// about it.
func (x *exchange) inspect(v *verdicts) {
	v.found, v.tools = nil, nil
	if !x.route.body {
		return
	}
	v.found = inspect(&x.tape, x.d.rules, func(w *walker) {
		if !x.route.model {
			return
		}
		if tool := searchModel(x.served); tool != "" {
			w.add(tool, "the model "+quote(x.served), "model", 0)
		}
	})
	for i := range v.found {
		dec := policy.Decision{}
		if v.found[i].never == "" {
			dec = x.c.View.ProviderTool(v.found[i].tool)
		}
		v.tools = append(v.tools, dec)
	}
}

// asks says whether policy has people decide about anything of the request.
func (v *verdicts) asks() bool {
	return v.model.Effect == policy.RequireApproval || slices.ContainsFunc(v.tools, func(d policy.Decision) bool { return d.Effect == policy.RequireApproval })
}

// denied is the refusal of what has no looser effect than that; nil: there is
// nothing of the kind.
func (x *exchange) denied(v *verdicts, most policy.Effect) *refusal {
	if v.model.Effect <= most {
		return x.deniedModel(&v.model)
	}
	for i := range v.found {
		f := &v.found[i]
		switch {
		case f.never != "":
			return denied("redirecting-field", f.what+" "+f.never, "Leave it out")
		case v.tools[i].Effect <= most:
			return deniedTool(f, &v.tools[i])
		}
	}
	return nil
}

func (x *exchange) deniedModel(dec *policy.Decision) *refusal {
	msg := "the model " + quote(x.asked.model) + " is not allowed for this sandbox"
	if dec.Reason != "" {
		msg += " (" + strings.TrimRight(dec.Reason, ".") + ")"
	}
	return &refusal{status: http.StatusForbidden, code: codeDenied, reason: "model", param: "model", message: msg, decision: dec,
		remedy: "Use a model that is allowed, or ask the operator for an inference rule that allows it"}
}

func deniedTool(f *finding, dec *policy.Decision) *refusal {
	msg := f.what + " happens on the provider's side, outside the fence, and "
	if dec.Rule != (policy.RuleRef{}) && dec.Reason != "" {
		msg += "is not allowed for this sandbox (" + strings.TrimRight(dec.Reason, ".") + ")"
	} else {
		msg += "no rule on server:provider/tool:" + f.tool + " allows it"
	}
	return &refusal{status: http.StatusForbidden, code: codeDenied, reason: "provider-tool", param: f.param, decision: dec, message: msg, remedy: toolRemedy(f.tool)}
}

// readBody reads the request body within its bounds.
func (x *exchange) readBody() *refusal {
	if !x.route.body {
		if x.in.ContentLength != 0 || len(x.in.TransferEncoding) > 0 {
			return invalid(http.StatusBadRequest, "body", x.route.method+" "+x.route.path+" takes no body", "Leave it out")
		}
		return nil
	}
	if enc := x.in.Header.Values("Content-Encoding"); len(enc) > 1 || len(enc) == 1 && !strings.EqualFold(enc[0], "identity") {
		return invalid(http.StatusUnsupportedMediaType, "content-encoding", "the body is compressed, and what is forwarded is what was judged",
			"Send it without Content-Encoding")
	}
	types := x.in.Header.Values("Content-Type")
	mt, params, err := mime.ParseMediaType(x.in.Header.Get("Content-Type"))
	cs := params["charset"]
	if len(types) != 1 || err != nil || mt != "application/json" || cs != "" && !strings.EqualFold(cs, "utf-8") {
		return invalid(http.StatusUnsupportedMediaType, "content-type", "the content type is not application/json in UTF-8",
			"Send Content-Type: application/json")
	}
	return x.fillBody()
}

var (
	errBusy     = errors.New("busy")
	errTooLarge = errors.New("too large")
)

func (x *exchange) fillBody() *refusal {
	err := x.drain()
	switch {
	case err == nil:
		x.rec.ev.BytesOut = uint64(len(x.body))
		return nil
	case errors.Is(err, errTooLarge):
		return invalid(http.StatusRequestEntityTooLarge, "body-size", "the body is larger than "+
			strconv.FormatInt(x.r.opt.MaxBody>>20, 10)+" MiB", "Send less at once")
	case errors.Is(err, errBusy):
		return busy()
	default:
		return invalid(http.StatusBadRequest, "body", "the body broke off", "Send it again")
	}
}

func busy() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: codeBusy, reason: "busy",
		message: "the gateway holds as many request bodies as it may", remedy: "Try again"}
}

// nodeCost is what one value on the tape is counted as, in bytes: the node and
// its share of the sets that find duplicate keys.
const nodeCost = 128

// drain reads the body in growing steps, each counted before it is taken.
func (x *exchange) drain() error {
	rc := http.NewResponseController(x.w)
	limit := x.r.opt.MaxBody
	if x.in.ContentLength > limit {
		return errTooLarge
	}
	size := int64(8 << 10)
	if n := x.in.ContentLength; n >= 0 && n < 1<<20 {
		size = n + 1 // room to see the end without growing
	}
	buf := make([]byte, 0, size)
	if !x.hold(size) {
		return errBusy
	}
	for {
		if len(buf) == cap(buf) {
			grow := min(int64(cap(buf)), limit+1-int64(cap(buf)))
			if grow <= 0 {
				return errTooLarge
			}
			if !x.hold(grow) {
				return errBusy
			}
			next := make([]byte, len(buf), int64(cap(buf))+grow)
			copy(next, buf)
			buf = next
		}
		_ = rc.SetReadDeadline(time.Now().Add(x.r.opt.BodyIdle)) // not every writer has deadlines; the server's own still hold
		n, err := x.in.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return errTooLarge
		}
		if err == io.EOF {
			x.body = buf
			_ = rc.SetReadDeadline(time.Time{})
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hold counts n bytes against the bound of all bodies.
func (x *exchange) hold(n int64) bool {
	if x.r.buffered.Add(n) > x.r.opt.MaxBuffered {
		x.r.buffered.Add(-n)
		return false
	}
	x.held += n
	return true
}

// unhold gives back n bytes of those that are held.
func (x *exchange) unhold(n int64) {
	x.r.buffered.Add(-n)
	x.held -= n
}

func (x *exchange) releaseBody() {
	x.unhold(x.held)
	putNodes(x.tape.nodes)
	x.tape.nodes = nil
}

// nodePool keeps the tapes of ordinary requests.
var nodePool = sync.Pool{New: func() any { return new([]node) }}

func putNodes(n []node) {
	if cap(n) == 0 || cap(n) > 1<<14 {
		return
	}
	n = n[:0]
	nodePool.Put(&n)
}

// parseBody parses the body and takes out what is judged.
func (x *exchange) parseBody() *refusal {
	t, err := parse(x.body, (*nodePool.Get().(*[]node))[:0], func(n int) bool { return x.hold(int64(n) * nodeCost) })
	x.tape = t
	if errors.Is(err, errBusy) {
		return busy()
	}
	if err != nil {
		return invalid(http.StatusBadRequest, "body", "the body is not strict JSON: "+err.Error(), "Send one JSON object, each key once")
	}
	if t.nodes[0].kind != kindObject {
		return invalid(http.StatusBadRequest, "body", "the body is not a JSON object", "Send one JSON object")
	}
	take := (*exchange).topLevel
	if x.d.take != nil {
		take = x.d.take
	}
	if ref := take(x); ref != nil {
		return ref
	}
	a := &x.asked
	x.rec.ev.Model, x.rec.ev.Stream = a.model, a.stream
	if !x.route.model {
		return nil
	}
	if t.oddChoices() {
		return invalid(http.StatusBadRequest, "body", "how many answers are asked for is not a whole number", "Write it in digits")
	}
	if a.model == "" {
		if x.route.defaultModel == "" {
			ref := invalid(http.StatusBadRequest, "model", "the request names no model", "Name one")
			ref.param = "model"
			return ref
		}
		a.model = x.route.defaultModel
		x.rec.ev.Model = a.model
	}
	return nil
}

// judgedKeys are the top-level members that are read here. A variant in
// another letter case is refused: some servers would take it for the member.
var judgedKeys = []string{"model", "stream", "stream_options", "tools"}

func (x *exchange) topLevel() *refusal {
	var ref *refusal
	t := &x.tape
	t.children(0, func(c uint32) bool {
		key := t.folded(c)
		if t.called(c, key, judgedKeys...) {
			if ref = x.variant(); ref == nil {
				ref = x.takeKey(string(key), c)
			}
		}
		return ref == nil
	})
	return ref
}

// variant is the refusal of a key in other letters than those of the member that
// was looked up; nil: there was none.
func (x *exchange) variant() *refusal {
	t := &x.tape
	if t.variant == 0 {
		return nil
	}
	of := t.variantOf
	if of == "" {
		of = string(t.folded(t.variant))
	}
	return invalid(http.StatusBadRequest, "body", "the key "+quote(t.key(t.variant))+" is a variant of "+quote(of), "Use the documented spelling")
}

// takeKey takes one judged member out of the body.
func (x *exchange) takeKey(key string, c uint32) *refusal {
	t := &x.tape
	switch key {
	case "model":
		name, ok := t.text(c)
		if !ok || !modelName(name) {
			ref := invalid(http.StatusBadRequest, "model", "the model is not a plain name", "Name one model as a string")
			ref.param = "model"
			return ref
		}
		x.asked.model, x.asked.modelNode = name, c
	case "stream":
		switch t.nodes[c].kind {
		case kindTrue:
			x.asked.stream = true
		case kindFalse, kindNull:
		default:
			ref := invalid(http.StatusBadRequest, "body", `"stream" is not a boolean`, "Use true or false")
			ref.param = "stream"
			return ref
		}
	case "stream_options":
		if i, ok := t.member(c, "include_usage"); ok {
			x.asked.includeUsage = t.nodes[i].kind == kindTrue
		}
	}
	return nil
}

// modelName says whether s can be a model's name: printable ASCII without
// spaces or quotes, so that it means the same to every reader.
func modelName(s string) bool {
	if s == "" || len(s) > maxIdentifier {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\' {
			return false
		}
	}
	return true
}
