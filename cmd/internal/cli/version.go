// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringfence/ringfence/cmd/internal/show"
	"github.com/ringfence/ringfence/pkg/api"
)

// versions is what version prints as JSON.
type versions struct {
	Client api.VersionInfo  `json:"client"`
	Daemon *api.VersionInfo `json:"daemon,omitempty"`
	Error  string           `json:"daemonError,omitempty"`
}

func (a *app) clientVersion() api.VersionInfo {
	v := api.VersionInfo{Version: a.version, API: api.Version, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this tool and of the daemon",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versions{Client: a.clientVersion()}
			ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
			defer cancel()
			if d, err := a.client().Version(ctx); err != nil {
				v.Error = err.Error()
			} else {
				v.Daemon = &d
			}
			if a.json() {
				return show.JSON(a.out, v)
			}
			_, _ = fmt.Fprintln(a.out, "ringfence ", versionLine(v.Client))
			if v.Daemon == nil {
				_, _ = fmt.Fprintln(a.out, "ringfenced", show.Text(v.Error, 300))
				return nil
			}
			_, err := fmt.Fprintln(a.out, "ringfenced", versionLine(*v.Daemon))
			return err
		},
	}
	a.outputFlag(cmd, "table", "json")
	return cmd
}

func versionLine(v api.VersionInfo) string {
	s := v.Version
	if v.Commit != "" {
		s += " " + v.Commit[:min(len(v.Commit), 12)]
	}
	s += " api " + v.API
	if v.Kernel != "" {
		s += " on Linux " + v.Kernel
	}
	return show.Text(s, 200)
}
