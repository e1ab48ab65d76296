// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/container"
)

// adoptFlags are the flags of adopt.
type adoptFlags struct {
	req      api.AdoptRequest
	as, ca   string
	policies []string
}

func (a *app) adoptCommand() *cobra.Command {
	var f adoptFlags
	cmd := &cobra.Command{
		Use:   "adopt (--pid PID | --cgroup PATH | --container ID)",
		Short: "Put the network of what runs already behind the fence (root)",
		Long: "Put the network of what runs already behind the fence: every process of a cgroup v2 and\n" +
			"of those below it. From then on it reaches what policy allows, through the gateway, and\n" +
			"connections that were open are ended. Without --inbound nobody reaches its servers either.\n" +
			"Only the network: files and system calls of a process that runs cannot be fenced any\n" +
			"more, and `ringfence ps` says so.\n\n" +
			"It is refused when a process holds descriptors that would stay outside of the fence\n" +
			"(sockets made elsewhere, raw, netlink, packet and vsock sockets, connected unix sockets).\n" +
			"The adoption ends with the cgroup, or with `ringfence release`.",
		Example: "  ringfence adopt --pid 4711 --policy policy.yaml\n" +
			"  ringfence adopt --container 3f2a9c0d41e7 --as org:acme/team:web/agent:shop --direct\n" +
			"  ringfence adopt --cgroup /system.slice/agent.service --unix-sockets --keep-sockets",
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.adopt(cmd.Context(), f) },
	}
	fl := cmd.Flags()
	fl.IntVar(&f.req.PID, "pid", 0, "a process: everything in its cgroup")
	fl.StringVar(&f.req.Cgroup, "cgroup", "", "a cgroup v2, by its path or as /proc/PID/cgroup has it")
	fl.StringVar(&f.req.Container, "container", "", fmt.Sprintf("the id of a container, or at least its first %d digits; of LXC the name", container.MinID))
	fl.StringVar(&f.as, "as", "", "whom it acts for: org:X/team:Y[/agent:Z] (default org:local/team:default/agent:NAME)")
	fl.StringVar(&f.req.Name, "name", "", "a name for ps and release")
	fl.StringArrayVar(&f.policies, "policy", nil, "a policy FILE for this one (repeatable)")
	fl.StringVar(&f.ca, "ca", "", "write to FILE the certificate that signs where policy looks into TLS")
	fl.BoolVar(&f.req.Direct, "direct", false, "what an address rule allows does not go through the gateway")
	fl.BoolVar(&f.req.Inbound, "inbound", false, "answer TCP connections that others begin: for what serves")
	fl.BoolVar(&f.req.Loopback, "loopback", false, "open the loopback of its network namespace (not of the machine's own)")
	fl.BoolVar(&f.req.UnixSockets, "unix-sockets", false, "open unix sockets, those of the host's services included")
	fl.BoolVar(&f.req.KeepSockets, "keep-sockets", false, "tolerate descriptors outside of the fence, and list them as unenforced")
	cmd.MarkFlagsMutuallyExclusive("pid", "cgroup", "container")
	cmd.MarkFlagsOneRequired("pid", "cgroup", "container")
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func (a *app) adopt(ctx context.Context, f adoptFlags) error {
	req := f.req
	if req.Cgroup != "" {
		req.Cgroup = filepath.Clean(req.Cgroup)
	}
	var err error
	if req.Scope, err = principal(f.as, []string{f.what()}); err != nil {
		return err
	}
	for _, name := range f.policies {
		text, err := a.readDocument(name)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		req.Policies = append(req.Policies, api.Document{File: name, Text: string(text)})
	}
	res, err := a.client().Adopt(ctx, req)
	if err != nil {
		return err
	}
	if err := a.printAdopted(&res); err != nil {
		return err
	}
	if f.ca == "" {
		return nil
	}
	if err := os.WriteFile(f.ca, []byte(res.CA), 0o644); err != nil { //nolint:gosec // a certificate is public
		id := show.Text(res.Sandbox.ID, 64)
		return fmt.Errorf("it is adopted as %s, but its certificate could not be written: %w (`ringfence release %s` takes the fence away again)", id, err, id)
	}
	return nil
}

// printAdopted says what was done, and what is not fenced.
func (a *app) printAdopted(res *api.Adopted) error {
	if a.json() {
		return show.JSON(a.out, res)
	}
	_, _ = fmt.Fprintln(a.out, show.Text(res.Sandbox.ID, 64))
	said := "adopted: its network is fenced; files and system calls are not (it runs already)"
	if res.Ended > 0 {
		said += fmt.Sprintf("; %d open connections were ended", res.Ended)
	}
	_, _ = fmt.Fprintln(a.err, "ringfence: "+said)
	for _, p := range res.Sandbox.Parts {
		if p.State == api.Unenforced || p.State == api.Degraded {
			_, _ = fmt.Fprintln(a.err, "ringfence: "+p.State+": "+show.Text(p.Name+": "+p.Detail, 500))
		}
	}
	return nil
}

// what names the agent where --as does not.
func (f *adoptFlags) what() string {
	switch {
	case f.req.Name != "":
		return f.req.Name
	case f.req.Container != "":
		return f.req.Container[:min(len(f.req.Container), container.MinID)]
	case f.req.Cgroup != "":
		return filepath.Base(f.req.Cgroup)
	}
	comm, err := os.ReadFile("/proc/" + strconv.Itoa(f.req.PID) + "/comm")
	if err != nil {
		return "process"
	}
	return strings.TrimSpace(string(comm))
}

func (a *app) releaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release SANDBOX...",
		Short: "Take the fence from what was adopted: it goes on without (root)",
		Long: "Take the fence from what was adopted with `ringfence adopt`. Its processes go on WITHOUT\n" +
			"a fence; connections through the gateway are cut. What Ringfence started itself is never\n" +
			"released: stop it.",
		Example:           "  ringfence release shop",
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: a.completeSandboxes,
		RunE: func(cmd *cobra.Command, refs []string) error {
			released := []api.Sandbox{}
			first := a.each(refs, func(ref string) error {
				b, err := a.client().Release(cmd.Context(), ref)
				if err != nil {
					return err
				}
				released = append(released, b)
				if !a.json() {
					_, _ = fmt.Fprintln(a.out, show.Text(b.ID, 64))
					_, _ = fmt.Fprintln(a.err, "ringfence: released: its processes go on without a fence")
				}
				return nil
			})
			if a.json() {
				if err := show.JSON(a.out, released); err != nil {
					return err
				}
			}
			return first
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}
