// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/scope"
	"github.com/ringfence/ringfence/pkg/webhook"
)

// Webhook says who is told about approvals. Without a URL nobody is.
type Webhook struct {
	URL        string        `yaml:"url"`        // https://HOST/PATH; http only to a loopback address
	SecretFile string        `yaml:"secretFile"` // root's alone; deliveries are signed with it
	Timeout    time.Duration `yaml:"timeout"`    // of one attempt
	RootCAs    string        `yaml:"rootCAs"`    // PEM file added to the system's roots
}

// check looks at everything but the files.
func (w *Webhook) check() error {
	if w.URL == "" {
		if w.SecretFile != "" || w.RootCAs != "" {
			return errors.New("configuration: webhook: a secretFile or rootCAs without a url")
		}
		return nil
	}
	t := webhook.Target{URL: w.URL, Timeout: w.Timeout, Secret: make([]byte, webhook.MinSecret)}
	if err := t.Valid(); err != nil {
		return fmt.Errorf("configuration: webhook: %w", err)
	}
	if !filepath.IsAbs(w.SecretFile) {
		return fmt.Errorf("configuration: webhook.secretFile %q is not an absolute path", w.SecretFile)
	}
	if w.RootCAs != "" && !filepath.IsAbs(w.RootCAs) {
		return fmt.Errorf("configuration: webhook.rootCAs %q is not an absolute path", w.RootCAs)
	}
	return nil
}

// target reads the files.
func (w *Webhook) target() (*webhook.Target, error) {
	f, err := os.Open(w.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("webhook.secretFile: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("webhook.secretFile: %w", err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || !ok || sys.Uid != 0 || st.Size() > webhook.MaxSecret {
		return nil, fmt.Errorf("webhook.secretFile %s: it has to be a file of at most %d bytes that is root's, and nobody else's to read (chmod 600)", w.SecretFile, webhook.MaxSecret)
	}
	t := &webhook.Target{URL: w.URL, Timeout: w.Timeout}
	if t.Secret, err = os.ReadFile(w.SecretFile); err != nil {
		return nil, fmt.Errorf("webhook.secretFile: %w", err)
	}
	t.Secret = bytes.TrimRight(t.Secret, "\r\n")
	if t.RootCAs, err = readRoots("webhook.rootCAs", w.RootCAs); err != nil {
		return nil, err
	}
	if err := t.Valid(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return t, nil
}

// openWebhook fills the queue with what waits, and with what has changed so lately
// that it would still be tried: nothing of the queue was kept. It does that before
// anything can change.
func (d *Daemon) openWebhook() error {
	if d.cfg.Webhook.URL == "" {
		return nil
	}
	t, err := d.cfg.Webhook.target()
	if err != nil {
		return err
	}
	d.hookSender = &webhook.Process{Binary: ownBinary, UID: d.cfg.Gateway.UID, GID: d.cfg.Gateway.GID, Target: t, Logger: d.logger}
	d.hooks = webhook.NewQueue(webhook.Options{Now: time.Now, Tell: func(failing bool, text string) {
		what := "webhook"
		if failing {
			what = "degraded"
		}
		d.daemonEvent(what, text)
	}})
	list, err := d.approvals.Changed(context.Background(), time.Now().Add(-webhook.GiveUpAfter))
	for i := range list {
		d.announce(&list[i])
	}
	return err
}

// sendWebhooks runs the process that sends, until ctx ends.
func (d *Daemon) sendWebhooks(ctx context.Context, wg *sync.WaitGroup) {
	if d.hooks == nil {
		return
	}
	d.hookSender.Filter = d.filter
	wg.Go(func() { d.hookSender.Run(ctx, d.hooks.Run) })
}

// announced is the body of a delivery.
type announced struct {
	ID       string            `json:"id"` // the same each time that it is sent
	Type     string            `json:"type"`
	Node     string            `json:"node"`
	Hostname string            `json:"hostname"`
	Changed  time.Time         `json:"changed"` // when it came to this state
	Approval announcedApproval `json:"approval"`
	Approve  string            `json:"approve,omitempty"` // the command, while it waits
}

type announcedApproval struct {
	ID        string          `json:"id"`
	State     string          `json:"state"`
	Why       string          `json:"why,omitempty"`
	Kind      string          `json:"kind"`
	Target    string          `json:"target"`              // a sandbox's words
	Arguments string          `json:"arguments,omitempty"` // likewise, redacted
	Scope     string          `json:"scope"`
	Sandbox   string          `json:"sandbox"`
	Launcher  string          `json:"launcher"`
	Rules     []string        `json:"rules"`
	Needs     string          `json:"needs,omitempty"` // who has to agree still
	Given     string          `json:"given,omitempty"` // what an approval gives
	Created   time.Time       `json:"created"`
	Expires   time.Time       `json:"expires"`
	Votes     []announcedVote `json:"votes,omitempty"`
}

type announcedVote struct {
	Who     string    `json:"who"`
	Approve bool      `json:"approve"`
	Comment string    `json:"comment,omitempty"`
	At      time.Time `json:"at"`
}

// announce queues the present state of a request. It never waits: nobody is
// looked up.
func (d *Daemon) announce(r *approval.Request) {
	if d.hooks == nil {
		return
	}
	a := announced{ID: deliveryID(r), Type: "approval", Node: d.self.UID, Hostname: d.self.Hostname, Changed: r.Changed(),
		Approval: announcedApproval{ID: r.ID, State: r.State.String(), Why: r.Why, Kind: string(r.Kind), Target: r.Target, Arguments: r.Shown, Scope: r.Scope, Sandbox: r.Sandbox,
			Launcher: scope.Operator(r.Launcher, ""), Created: r.Created, Expires: r.Expires}}
	for _, demand := range r.Demands {
		a.Approval.Rules = append(a.Approval.Rules, demand.Rule)
	}
	for _, v := range r.Votes {
		a.Approval.Votes = append(a.Approval.Votes, announcedVote{Who: scope.Operator(v.UID, v.Name), Approve: v.Approve, Comment: v.Comment, At: v.At})
	}
	if r.State == approval.Pending {
		a.Approval.Needs, a.Approve = r.Needs(), "ringfence approvals approve "+r.ID
	}
	if r.Grant != nil {
		a.Approval.Given = r.Grant.Says()
	}
	body, err := json.Marshal(a)
	if err != nil {
		d.logger.Error("webhook", "error", err)
		return
	}
	d.hooks.Add(webhook.Delivery{ID: a.ID, Source: r.Sandbox, Body: body})
}

// deliveryID is the same for one state of one request, also after a restart.
func deliveryID(r *approval.Request) string {
	id := r.ID + "-" + r.State.String()
	if n := len(r.Votes); r.State == approval.Pending && n > 0 {
		id += "-" + strconv.Itoa(n)
	}
	return id
}
