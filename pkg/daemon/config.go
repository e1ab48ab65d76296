// SPDX-License-Identifier: Apache-2.0

// Package daemon wires the keeper together: configuration, start, recovery,
// the operator API's backend and stop.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ringfence/ringfence/pkg/sandbox"
)

// Config is the file of `ringfenced --config`. Flags win over it. Every path
// is absolute after Complete.
type Config struct {
	RunDir     string `yaml:"runDir"`     // sockets, running sandboxes, pinned kernel objects
	StateDir   string `yaml:"stateDir"`   // event log, secrets, documents of the API
	PolicyDir  string `yaml:"policyDir"`  // documents of the operator, watched
	ProfileDir string `yaml:"profileDir"` // additional profiles by name; the shipped ones are built in
	Socket     string `yaml:"socket"`     // operator API; default RunDir/ringfence.sock
	Group      string `yaml:"group"`      // members may use the API; default "ringfence"
	InitPath   string `yaml:"initPath"`   // ringfence-init; default beside ringfenced
	LockDir    string `yaml:"lockDir"`    // uid locks, shared by all daemons of the machine; writable for root alone
	Spare      bool   `yaml:"spare"`      // keep one empty sandbox prepared for the next launch

	UIDRange UIDRange `yaml:"uidRange"`
	Gateway  Gateway  `yaml:"gateway"`
	Audit    Audit    `yaml:"audit"`
	Attest   Attest   `yaml:"attest"`
	Metrics  Metrics  `yaml:"metrics"`
	Webhook  Webhook  `yaml:"webhook"`
}

// UIDRange is where sandboxes of root get their uids from.
type UIDRange struct {
	First uint32 `yaml:"first"`
	Count uint32 `yaml:"count"`
}

// Gateway configures the unprivileged process that meets sandboxes' bytes.
type Gateway struct {
	UID       uint32                  `yaml:"uid"`
	GID       uint32                  `yaml:"gid"`
	Resolvers []string                `yaml:"resolvers"` // "ip:port"; default: those of /etc/resolv.conf
	Hosts     map[string][]netip.Addr `yaml:"hosts"`     // names answered without a resolver
	RootCAs   string                  `yaml:"rootCAs"`   // PEM file added to the system's roots for upstream TLS
	// Outlive is how long a gateway of another build, which a former daemon
	// left, may go on while it has connections. 0 replaces it at once.
	Outlive time.Duration `yaml:"outlive"`
}

// Audit configures the event log.
type Audit struct {
	SegmentBytes int64 `yaml:"segmentBytes"`
	MaxBytes     int64 `yaml:"maxBytes"`
	// Landlock turns on the kernel's audit records of file denials. It
	// changes the audit state of the whole machine while the daemon runs.
	Landlock bool `yaml:"landlock"`
	// Syscalls records the system calls that a sandbox was refused. While a
	// sandbox lives, every system call of the machine takes some 60 ns longer.
	Syscalls bool `yaml:"syscalls"`
	// Watch lists absolute path prefixes besides the built-in ones: a sandbox
	// that looks for something there and does not find it is recorded.
	Watch []string `yaml:"watch"`
}

// Attest says how often the walls of every sandbox are compared with what was
// intended, and what happens to one whose walls no longer stand.
type Attest struct {
	Interval     time.Duration `yaml:"interval"`     // 1s to 1h
	OnDifference string        `yaml:"onDifference"` // OnDifferenceStop or OnDifferenceReport
}

// What a difference does.
const (
	OnDifferenceStop   = "stop"
	OnDifferenceReport = "report" // an event, and `ps`
)

func (a Attest) check() error {
	if a.Interval < time.Second || a.Interval > time.Hour {
		return fmt.Errorf("configuration: attest.interval %v must lie within 1s and 1h", a.Interval)
	}
	if a.OnDifference != OnDifferenceStop && a.OnDifference != OnDifferenceReport {
		return fmt.Errorf("configuration: attest.onDifference %q: %s or %s", a.OnDifference, OnDifferenceStop, OnDifferenceReport)
	}
	return nil
}

// Metrics says where the gateway serves Prometheus metrics.
type Metrics struct {
	Listen string `yaml:"listen"` // "unix:/path" or "127.0.0.1:port"; default unix:RunDir/metrics.sock
}

// address splits Listen. Metrics name what sandboxes do: nobody outside the
// machine may ask for them.
func (m Metrics) address() (network, addr string, err error) {
	if p, ok := strings.CutPrefix(m.Listen, "unix:"); ok && filepath.IsAbs(p) {
		return "unix", p, nil
	}
	if ap, err := netip.ParseAddrPort(m.Listen); err == nil && ap.Addr().IsLoopback() {
		return "tcp", m.Listen, nil
	}
	return "", "", fmt.Errorf("metrics.listen %q: only unix:/PATH or a loopback ip:port", m.Listen)
}

// Default is the configuration of an installed daemon.
func Default() Config {
	return Config{
		RunDir:     "/run/ringfence",
		StateDir:   "/var/lib/ringfence",
		PolicyDir:  "/etc/ringfence/policy",
		ProfileDir: "/etc/ringfence/profiles",
		Group:      "ringfence",
		LockDir:    "/run/ringfence-uids",
		Spare:      true,
		UIDRange:   UIDRange{First: 1_879_048_192, Count: 65_536},
		Gateway:    Gateway{UID: 64_998, GID: 64_998, Outlive: 10 * time.Minute},
		Audit:      Audit{SegmentBytes: 16 << 20, MaxBytes: 4 << 30, Syscalls: true},
		Webhook:    Webhook{Timeout: 10 * time.Second},
		Attest:     Attest{Interval: sandbox.DefaultAttestation, OnDifference: OnDifferenceStop},
	}
}

// ReadConfig reads a file over c. Unknown fields are errors with their line.
func (c *Config) ReadConfig(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Complete fills what follows from other fields and checks the whole.
func (c *Config) Complete(executable string) error {
	for _, p := range []*string{&c.RunDir, &c.StateDir, &c.PolicyDir, &c.ProfileDir, &c.LockDir} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
		*p = abs
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.RunDir, "ringfence.sock")
	}
	if len(c.Socket) > 100 {
		return fmt.Errorf("configuration: socket path %s is longer than a unix socket allows; choose a shorter runDir", c.Socket)
	}
	if c.Metrics.Listen == "" {
		c.Metrics.Listen = "unix:" + filepath.Join(c.RunDir, "metrics.sock")
	}
	if _, _, err := c.Metrics.address(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if c.InitPath == "" {
		c.InitPath = filepath.Join(filepath.Dir(executable), "ringfence-init")
	}
	if c.UIDRange.First < 1000 || c.UIDRange.Count == 0 || uint64(c.UIDRange.First)+uint64(c.UIDRange.Count) > 1<<32-2 {
		return fmt.Errorf("configuration: uidRange %d+%d must lie within 1000 and 4294967294", c.UIDRange.First, c.UIDRange.Count)
	}
	if c.Gateway.UID == 0 || c.Gateway.GID == 0 {
		return errors.New("configuration: the gateway must not run as root: set gateway.uid and gateway.gid")
	}
	if u := c.Gateway.UID; u >= c.UIDRange.First && u-c.UIDRange.First < c.UIDRange.Count {
		return errors.New("configuration: gateway.uid lies inside uidRange")
	}
	if err := c.Attest.check(); err != nil {
		return err
	}
	if err := c.Webhook.check(); err != nil {
		return err
	}
	if c.Gateway.Outlive < 0 {
		return fmt.Errorf("configuration: gateway.outlive: %s is less than nothing", c.Gateway.Outlive)
	}
	for _, p := range c.Audit.Watch {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("configuration: audit.watch: %q is not an absolute path", p)
		}
	}
	for _, r := range c.Gateway.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			return fmt.Errorf("configuration: gateway.resolvers: %q is not ip:port", r)
		}
	}
	return nil
}
