// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// AdoptRequest is the body of POST /v1/adopt: one of PID, Cgroup and Container
// names what runs already.
type AdoptRequest struct {
	PID         int        `json:"pid,omitempty"`       // a process: everything in its cgroup
	Cgroup      string     `json:"cgroup,omitempty"`    // a cgroup v2: its path, or as /proc/PID/cgroup has it
	Container   string     `json:"container,omitempty"` // id of a container, or at least its first twelve digits; of LXC the name
	Scope       string     `json:"scope,omitempty"`     // principal; "" = default scope and a name of what runs
	Name        string     `json:"name,omitempty"`
	Policies    []Document `json:"policies,omitempty"`    // apply to it only
	Direct      bool       `json:"direct,omitempty"`      // what an address rule allows does not go through the gateway
	Inbound     bool       `json:"inbound,omitempty"`     // connections that others begin are answered
	Loopback    bool       `json:"loopback,omitempty"`    // the loopback of its network namespace is open
	UnixSockets bool       `json:"unixSockets,omitempty"` // unix sockets are open
	KeepSockets bool       `json:"keepSockets,omitempty"` // descriptors outside of the fence are tolerated and listed
}

// Adopted answers POST /v1/adopt.
type Adopted struct {
	Sandbox Sandbox `json:"sandbox"`
	Ended   int     `json:"ended"` // connections that were open before and were ended
	CA      string  `json:"ca"`    // PEM: who signs where policy looks into TLS
}

// adoptTimeout bounds how long an adoption may take.
const adoptTimeout = 2 * time.Minute

func (s *Server) adopt(w http.ResponseWriter, r *call) error {
	var req AdoptRequest
	if err := s.readJSON(r, &req); err != nil {
		return err
	}
	if err := checkAdopt(&req); err != nil {
		return err
	}
	r.note("adopt %s", adoptee(&req))
	_ = r.conn.SetWriteDeadline(time.Now().Add(adoptTimeout + writeTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), adoptTimeout)
	defer cancel()
	res, err := s.o.Backend.Adopt(ctx, r.caller, &req)
	if err == nil {
		r.box = &res.Sandbox
	}
	return answer(w, res, err)
}

// adoptee says in words what is to be adopted.
func adoptee(r *AdoptRequest) string {
	switch {
	case r.PID != 0:
		return "process " + strconv.Itoa(r.PID)
	case r.Container != "":
		return "container " + r.Container
	}
	return "cgroup " + r.Cgroup
}

func checkAdopt(r *AdoptRequest) error {
	named := 0
	for _, set := range []bool{r.PID != 0, r.Cgroup != "", r.Container != ""} {
		if set {
			named++
		}
	}
	switch {
	case named != 1:
		return Errorf(CodeBadRequest, "name one of a process, a cgroup and a container")
	case r.PID < 0:
		return Errorf(CodeBadRequest, "%d is no process", r.PID)
	case r.Cgroup != "" && !cleanAbs(r.Cgroup):
		return Errorf(CodeBadRequest, "the cgroup %q is not a clean absolute path", r.Cgroup)
	}
	if r.Name != "" {
		if err := checkName("sandbox", r.Name); err != nil {
			return err
		}
	}
	for _, d := range r.Policies {
		if d.Text == "" {
			return Errorf(CodeBadRequest, "the policy %q has no text: the client reads the file and sends what is in it", d.File)
		}
	}
	return checkScope(r.Scope)
}

func (s *Server) release(w http.ResponseWriter, r *call) error {
	r.note("release sandbox %s", r.box.ID)
	res, err := s.o.Backend.Release(r.Context(), r.caller, r.box.ID)
	return answer(w, res, err)
}

// Adopt puts the network of processes that run already behind the fence.
func (c *Client) Adopt(ctx context.Context, r AdoptRequest) (Adopted, error) {
	return call1[Adopted](ctx, c, "POST", "/v1/adopt", r)
}

// Release takes the fence from adopted processes.
func (c *Client) Release(ctx context.Context, ref string) (Sandbox, error) {
	return call1[Sandbox](ctx, c, "POST", "/v1/sandboxes/"+url.PathEscape(ref)+"/release", nil)
}
