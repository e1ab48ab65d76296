// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ringfence/ringfence/pkg/policy"
)

// answer writes what a Backend returned.
func answer[T any](w http.ResponseWriter, v T, err error) error {
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (s *Server) version(w http.ResponseWriter, r *call) error {
	v, err := s.o.Backend.Version(r.Context())
	if v.API == "" {
		v.API = Version
	}
	return answer(w, v, err)
}

// status tells who does not see the node how many sandboxes it sees itself, and
// which parts work.
func (s *Server) status(w http.ResponseWriter, r *call) error {
	v, err := s.o.Backend.Status(r.Context())
	if err != nil || r.caller.Rights.SeesNode() {
		return answer(w, v, err)
	}
	list, err := s.seen(r)
	v.Sandboxes, v.Counters, v.Parts = 0, nil, withoutDetails(v.Parts)
	for _, b := range list {
		if !b.HasEnded() {
			v.Sandboxes++
		}
	}
	return answer(w, v, err)
}

// withoutDetails leaves each part's state. Several of a name, such as secrets,
// are one.
func withoutDetails(parts []Part) (out []Part) {
	for _, p := range parts {
		if p.Name != "secret" {
			out = append(out, Part{Name: p.Name, State: p.State})
		}
	}
	return out
}

// doctor tells who does not see the node nothing of its documents.
func (s *Server) doctor(w http.ResponseWriter, r *call) error {
	v, err := s.o.Backend.Doctor(r.Context())
	if !r.caller.Rights.SeesNode() {
		v.Checks = slices.DeleteFunc(v.Checks, func(c Check) bool { return c.Name == CheckPolicy })
	}
	return answer(w, v, err)
}

func (s *Server) verifyAudit(w http.ResponseWriter, r *call) error {
	_ = r.conn.SetWriteDeadline(time.Time{}) // a long log takes long
	v, err := s.o.Backend.VerifyAudit(r.Context())
	return answer(w, v, err)
}

// listSandboxes lists those that the caller sees.
func (s *Server) listSandboxes(w http.ResponseWriter, r *call) error {
	list, err := s.seen(r)
	return answer(w, list, err)
}

func (s *Server) seen(r *call) ([]Sandbox, error) {
	list, err := s.o.Backend.Sandboxes(r.Context())
	out := make([]Sandbox, 0, len(list))
	for _, b := range list {
		if r.caller.Rights.Sees(b.Owner, b.Scope) {
			out = append(out, b)
		}
	}
	return out, err
}

func (s *Server) getSandbox(w http.ResponseWriter, r *call) error {
	return writeJSON(w, http.StatusOK, r.box)
}

// maxStopTimeout bounds how long a stop may wait for a program.
const maxStopTimeout = 10 * time.Minute

func (s *Server) stop(w http.ResponseWriter, r *call) error {
	var req StopRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	d := time.Duration(req.Timeout)
	if d < 0 || d > maxStopTimeout {
		return Errorf(CodeBadRequest, "the timeout of a stop is between 0 and %s", maxStopTimeout)
	}
	r.note("stop sandbox %s, after %s at most", r.box.ID, d)
	_ = r.conn.SetWriteDeadline(time.Now().Add(d + 2*writeTimeout))
	res, err := s.o.Backend.Stop(r.Context(), r.caller, r.box.ID, d)
	return answer(w, res, err)
}

func (s *Server) allow(w http.ResponseWriter, r *call) error {
	req, err := s.allowRequest(r, "allow", checkAllow)
	if err != nil {
		return err
	}
	res, err := s.o.Backend.Allow(r.Context(), r.caller, req)
	return answer(w, res, err)
}

func (s *Server) takeBack(w http.ResponseWriter, r *call) error {
	req, err := s.allowRequest(r, "take back", checkTakeBack)
	if err != nil {
		return err
	}
	res, err := s.o.Backend.TakeBack(r.Context(), r.caller, req)
	return answer(w, res, err)
}

// allowRequest reads and admits a rule that is to be written or taken back:
// who may do the one may do the other.
func (s *Server) allowRequest(r *call, verb string, check func(*AllowRequest) error) (*AllowRequest, error) {
	var req AllowRequest
	if err := s.readJSON(r, &req); err != nil {
		return nil, err
	}
	destination, _ := policy.CutProto(req.Destination)
	host, port, err := net.SplitHostPort(destination)
	n, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || n == 0 || host == "" || len(req.Destination) > 300 {
		return nil, Errorf(CodeBadRequest, "the destination %q is not HOST:PORT or HOST:PORT/udp", req.Destination)
	}
	if (req.Sandbox == "") == (req.Scope == "") {
		return nil, Errorf(CodeBadRequest, "name either a sandbox or a scope")
	}
	if err := check(&req); err != nil {
		return nil, err
	}
	r.note("%s %s (%s) for sandbox %s", verb, req.Destination, cmp.Or(req.Mode, "every rule"), req.Sandbox)
	if req.Sandbox == "" {
		r.scope = req.Scope
		r.note("%s %s (%s) for %s", verb, req.Destination, cmp.Or(req.Mode, "every rule"), req.Scope)
		return &req, admitAllow(r.caller, &req, nil)
	}
	if err := s.resolve(r, req.Sandbox); err != nil {
		return nil, err
	}
	req.Sandbox = r.box.ID
	r.note("%s %s (%s) for sandbox %s", verb, req.Destination, cmp.Or(req.Mode, "every rule"), req.Sandbox)
	return &req, admitAllow(r.caller, &req, r.box)
}

// checkAllow checks the form of a new rule; what the host part may be is the
// policy's word.
func checkAllow(r *AllowRequest) error {
	switch {
	case r.Mode == AllowFor && r.For <= 0:
		return Errorf(CodeBadRequest, "the mode %q needs a duration above zero", r.Mode)
	case r.Mode != AllowFor && r.For != 0:
		return Errorf(CodeBadRequest, "only the mode %q takes a duration", AllowFor)
	case r.Mode == AllowSandbox && r.Sandbox == "":
		return Errorf(CodeBadRequest, "the mode %q needs a sandbox", r.Mode)
	}
	switch r.Mode {
	case AllowOnce, AllowFor, AllowAlways, AllowSandbox:
		return nil
	}
	return Errorf(CodeBadRequest, "the mode is %q, %q, %q or %q", AllowOnce, AllowFor, AllowAlways, AllowSandbox)
}

func checkTakeBack(r *AllowRequest) error {
	switch {
	case r.Mode != "" && r.Mode != AllowAlways, r.For != 0:
		return Errorf(CodeBadRequest, "a rule is taken back whatever its life; only the mode %q narrows that", AllowAlways)
	case r.Mode == AllowAlways && r.Scope == "":
		return Errorf(CodeBadRequest, "a rule of the mode %q is for a scope: name it", r.Mode)
	}
	return nil
}

// checksAtOnce bounds how many users' documents are checked at one time.
const checksAtOnce = 2

func (s *Server) checkPolicy(w http.ResponseWriter, r *call) error {
	var req CheckRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	done, err := s.checks.take(r.Context(), r.caller.UID)
	if err != nil {
		return err
	}
	defer done()
	res, err := s.o.Backend.CheckPolicy(r.Context(), req.Documents)
	return answer(w, res, err)
}

func (s *Server) listProviders(w http.ResponseWriter, r *call) error {
	list, err := s.o.Backend.Providers(r.Context())
	if list == nil {
		list = []Provider{}
	}
	return answer(w, list, err)
}

func (s *Server) inferenceStatus(w http.ResponseWriter, r *call) error {
	st, err := s.o.Backend.Inference(r.Context())
	if st.Places == nil {
		st.Places = []InferencePlace{}
	}
	return answer(w, st, err)
}

func (s *Server) addProvider(w http.ResponseWriter, r *call) error {
	var req ProviderRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if err := checkName("provider", req.Name); err != nil {
		return err
	}
	if len(req.Key) > 16<<10 {
		return Errorf(CodeBadRequest, "a key is at most 16 KiB")
	}
	r.note("add the provider %s, with its key: %v", req.Name, req.Key != "")
	p, err := s.o.Backend.AddProvider(r.Context(), r.caller, &req)
	return answer(w, p, err)
}

func (s *Server) removeProvider(w http.ResponseWriter, r *call) error {
	name := r.PathValue("name")
	if err := checkName("provider", name); err != nil {
		return err
	}
	r.note("remove the provider %s and its key", name)
	res, err := s.o.Backend.RemoveProvider(r.Context(), r.caller, name)
	return answer(w, res, err)
}
