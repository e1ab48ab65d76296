// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/container"
	"github.com/ringfence/ringfence/pkg/kernel"
	"github.com/ringfence/ringfence/pkg/sandbox"
	"github.com/ringfence/ringfence/pkg/scope"
)

// Adopt puts the network of running processes behind the fence.
func (b *backend) Adopt(ctx context.Context, c *api.Caller, r *api.AdoptRequest) (api.Adopted, error) {
	cgroup, agent, err := adoptee(r)
	if err != nil {
		return api.Adopted{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	principal, err := adoptedPrincipal(r.Scope, agent)
	if err != nil {
		return api.Adopted{}, api.Errorf(api.CodeBadRequest, "%v", err)
	}
	id := ""
	s, ended, err := b.d.sandboxes.Adopt(ctx, &sandbox.ForeignRequest{
		Principal: principal, Name: r.Name, Owner: c.UID, Cgroup: cgroup, Caller: filepath.Join(b.d.cgroupRoot, c.Cgroup),
		Direct: r.Direct, Inbound: r.Inbound, Loopback: r.Loopback, Unix: r.UnixSockets, KeepSockets: r.KeepSockets,
		Prepare: func(given string, p scope.Principal) ([]string, error) {
			id = given
			return b.d.addSandboxDocuments(id, c.UID, p, r.Policies)
		},
	})
	if err != nil {
		if id != "" {
			b.d.dropSandboxDocuments(id)
		}
		return api.Adopted{}, adoptFailure(err)
	}
	return api.Adopted{Sandbox: describe(s), Ended: ended, CA: string(s.CA())}, nil
}

// adoptee finds the cgroup that is meant, and a name for what runs in it.
func adoptee(r *api.AdoptRequest) (cgroup, agent string, err error) {
	switch {
	case r.PID != 0:
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", r.PID))
		if err != nil {
			return "", "", fmt.Errorf("there is no process %d", r.PID)
		}
		cgroup, err = sandbox.CgroupOf(r.PID)
		return cgroup, agentName(strings.TrimSpace(string(comm))), err
	case r.Container != "":
		root, err := kernel.CgroupRoot()
		if err != nil {
			return "", "", err
		}
		rel, err := container.Find(os.DirFS(root), r.Container)
		return filepath.Join(root, rel), agentName(r.Container[:min(len(r.Container), container.MinID)]), err
	}
	root, err := kernel.CgroupRoot()
	if err != nil {
		return "", "", err
	}
	cgroup = r.Cgroup
	if !strings.HasPrefix(cgroup, root+"/") && cgroup != root {
		cgroup = filepath.Join(root, cgroup) // as /proc/PID/cgroup has it
	}
	real, err := filepath.EvalSymlinks(cgroup)
	if err != nil {
		return "", "", fmt.Errorf("there is no cgroup %s", cgroup)
	}
	return real, agentName(filepath.Base(real)), nil
}

func adoptedPrincipal(text, agent string) (scope.Principal, error) {
	if text == "" {
		return scope.ParsePrincipal(api.DefaultScope + "/agent:" + agent)
	}
	p, err := scope.ParsePrincipal(text)
	if err == nil && p.Agent == "" {
		p.Agent = agent
	}
	return p, err
}

// maxShown is how many descriptors an error names.
const maxShown = 20

// adoptFailure says which descriptors are in the way.
func adoptFailure(err error) error {
	var loose *sandbox.RefusedSockets
	if !errors.As(err, &loose) {
		var le *sandbox.LaunchError
		if errors.As(err, &le) {
			return api.Errorf(api.CodeConflict, "not adopted: %s: %v", le.Step, le.Err).WithRemedy(le.Remedy)
		}
		return api.Errorf(api.CodeConflict, "not adopted: %v", err)
	}
	e := api.Errorf(api.CodeConflict, "not adopted: %v", loose)
	if len(loose.Sockets) == 0 {
		return e.WithRemedy("adopt fewer processes together; or adopt with --keep-sockets, which shows that not all was looked at")
	}
	var lines []string
	for i, l := range loose.Sockets {
		if i == maxShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(loose.Sockets)-i+loose.More))
			break
		}
		lines = append(lines, l.String())
	}
	e.Detail = "\n  " + strings.Join(lines, "\n  ")
	return e.WithRemedy("restart the program inside its cgroup and adopt it then; or adopt with --keep-sockets, which lists them as unenforced for as long as they live" + unixRemedy(loose))
}

func unixRemedy(e *sandbox.RefusedSockets) string {
	for _, l := range e.Sockets {
		if l.What == "unix" {
			return "; --unix-sockets opens unix sockets altogether"
		}
	}
	return ""
}

// Release takes the fence from adopted processes.
func (b *backend) Release(ctx context.Context, _ *api.Caller, id string) (api.Sandbox, error) {
	s, err := b.living(id)
	if err != nil {
		return api.Sandbox{}, err
	}
	if s.Record.Foreign == nil {
		return api.Sandbox{}, api.Errorf(api.CodeConflict, "sandbox %s was not adopted: Ringfence started it, and it never runs without its fence", id).WithRemedy("ringfence stop " + id)
	}
	if err := s.Release(ctx); err != nil {
		return api.Sandbox{}, err
	}
	return describeEnded(s), nil
}

// describeForeign is what operators see of adopted processes: which walls they
// do not have, and what is outside of the one they have.
func describeForeign(v *api.Sandbox, s *sandbox.Sandbox) {
	v.Adopted = true
	if at := s.Attested(); !at.IsZero() {
		v.Attested = &at
	}
	v.Profile = "(adopted)"
	network := api.Part{Name: "network", State: api.Enforced, Detail: "cgroup " + s.Record.Cgroup}
	at := s.Sighting()
	switch loose := len(at.Loose) + at.More; {
	case at.At.IsZero():
		network.State, network.Detail = api.Degraded, "descriptors have not been looked at yet since the daemon started"
	case loose > 0:
		network.State, network.Detail = api.Degraded, strconv.Itoa(loose)+" open descriptors are outside of the fence"
		network.Remedy = "restart the program inside its cgroup: what it opens then is fenced"
	}
	v.Parts = append(v.Parts, network)
	for _, l := range at.Left {
		v.Parts = append(v.Parts, api.Part{Name: fmt.Sprintf("process %d", l.PID), State: api.Unenforced, Detail: "it has left the cgroup: " + l.String(), Remedy: "end it"})
	}
	for _, l := range at.Loose {
		v.Parts = append(v.Parts, api.Part{Name: l.Place(), State: api.Unenforced, Detail: l.What + ": " + l.Why})
	}
	if at.More > 0 {
		v.Parts = append(v.Parts, api.Part{Name: "more descriptors", State: api.Unenforced, Detail: fmt.Sprintf("%d more are outside of the fence and are not listed", at.More)})
	}
	for _, weak := range []api.Part{
		{Name: "descriptors", Detail: at.Cut, Remedy: "adopt fewer processes together"},
		{Name: "privileges", Detail: strings.Join(at.Powers, "; "), Remedy: "run it without these capabilities"},
		{Name: "cgroup", Detail: strings.Join(at.Ways, "; "), Remedy: "run it where nothing above its cgroup is its own"},
		{Name: "programs of others", Detail: strings.Join(s.Beside(), "; "), Remedy: "find out whose they are: they may change the address that was judged"},
		{Name: "datagrams", Detail: s.Record.Foreign.NoDatagrams(), Remedy: "boot Linux 5.19 or later, then adopt again"},
	} {
		if weak.Detail != "" {
			weak.State = api.Degraded
			v.Parts = append(v.Parts, weak)
		}
	}
	for _, name := range []string{"files", "system calls", "identity"} {
		p := api.Part{Name: name, State: api.NotApplied, Detail: "not applied (adopted): this wall cannot be put around a process that runs"}
		if name == "identity" && at.Gains != "" {
			p.Detail += "; " + at.Gains
		}
		v.Parts = append(v.Parts, p)
	}
}
