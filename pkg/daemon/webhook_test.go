// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringfence/ringfence/pkg/approval"
	"github.com/ringfence/ringfence/pkg/webhook"
	"github.com/ringfence/ringfence/test/env"
)

// TestWhatWaitedIsTriedForAnHourAfterARestart: a request may be older than that
// when a daemon that has just begun queues it.
func TestWhatWaitedIsTriedForAnHourAfterARestart(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d := &Daemon{hooks: webhook.NewQueue(webhook.Options{Now: func() time.Time { return now }, Tell: func(bool, string) {},
		Pause: func(_ context.Context, by time.Duration) bool { now = now.Add(by); return true }})}
	d.announce(&approval.Request{ID: "r1", Sandbox: "00000001", State: approval.Pending, Created: now.Add(-2 * time.Hour), Expires: now.Add(time.Hour)})
	d.announce(&approval.Request{ID: "r2", Sandbox: "00000002", State: approval.Pending, Created: now, Expires: now.Add(time.Hour)})
	tried := 0
	d.hooks.Run(ctx, func(_ context.Context, s *webhook.Delivery) webhook.Result {
		if s.ID != "r1-pending" {
			cancel()
		} else {
			tried++
		}
		return webhook.Result{Outcome: webhook.Unreachable}
	})
	if tried < 60 {
		t.Errorf("it was tried %d times", tried)
	}
}

// TestRootsThatAreNoneAreRefusedAtStart: the sender would end for it, each time.
func TestRootsThatAreNoneAreRefusedAtStart(t *testing.T) {
	if os.Getuid() != 0 {
		env.Lack(t, true, "root, whose the secret has to be")
	}
	dir := t.TempDir()
	w := Webhook{URL: "https://a.test/", SecretFile: filepath.Join(dir, "secret"), Timeout: time.Second, RootCAs: filepath.Join(dir, "roots.pem")}
	if err := os.WriteFile(w.SecretFile, []byte(strings.Repeat("s", webhook.MinSecret)), 0o600); err != nil {
		t.Fatal(err)
	}
	block := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for _, text := range []string{"", "roots", block} {
		if err := os.WriteFile(w.RootCAs, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := &Daemon{}
		d.cfg.Gateway.RootCAs = w.RootCAs
		if _, err := d.gatewayConfig(); err == nil || !strings.Contains(err.Error(), "gateway.rootCAs "+w.RootCAs) {
			t.Errorf("%q for the gateway: %v", text, err)
		}
		if _, err := w.target(); err == nil || !strings.Contains(err.Error(), w.RootCAs+": it holds no certificate") {
			t.Errorf("%q: %v", text, err)
		}
	}
	w.RootCAs = ""
	if _, err := w.target(); err != nil {
		t.Error(err)
	}
}
