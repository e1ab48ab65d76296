// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ringfence/ringfence/pkg/api"
	"github.com/ringfence/ringfence/pkg/event"
)

const madeUpPrices = `version: made-up-1
effective: 2020-01-01
source: made up for a test
models:
  - {provider: openai, model: priced, rates: {input: "2", cachedInput: "0.5", output: "10"}}
`

// TestCostOfCalls: what a call costs is in its record, in the sums and in the metrics,
// each call once, also over a daemon that was killed; prices change without a restart.
func TestCostOfCalls(t *testing.T) {
	a := newAgents(t)
	file := filepath.Join(a.ws, "prices.yaml")
	need(t, os.WriteFile(file, []byte(madeUpPrices), 0o644))
	body := func(model string, stream bool) string {
		s := ""
		if stream {
			s = `,"stream":true`
		}
		return `{"model":"` + model + `"` + s + `,"messages":[{"role":"user","content":"hi"}]}`
	}
	ask := func(bodies ...string) {
		t.Helper()
		script := ""
		for _, b := range bodies {
			script += "curl -sS -o /dev/null https://api.openai.com/v1/chat/completions -H 'content-type: application/json' -d '" + b + "'\n"
		}
		if r := a.n.CLIIn(t, a.ws, "run", "--as", "org:acme/team:pay/agent:bot", "--profile", "coding", "--", "sh", "-c", script); r.Code != 0 {
			t.Fatalf("%s %s", r.Stdout, r.Stderr)
		}
	}
	costs := func(args ...string) api.Costs {
		t.Helper()
		r := a.n.CLI(t, append([]string{"cost", "report", "-o", "json"}, args...)...)
		var c api.Costs
		if err := json.Unmarshal([]byte(r.Stdout), &c); r.Code != 0 || err != nil {
			t.Fatalf("%d %s %s", r.Code, r.Stdout, r.Stderr)
		}
		return c
	}
	calls := func(n uint64) api.CostRow {
		t.Helper()
		var row api.CostRow
		eventually(t, "the sums", func() bool {
			c := costs("--by", "team", "--team", "pay")
			if len(c.Rows) == 1 {
				row = c.Rows[0]
			}
			return row.Calls >= n
		})
		if row.Calls != n {
			t.Errorf("%d calls are counted, not %d", row.Calls, n)
		}
		return row
	}

	ask(body("priced", false))
	ev := a.n.WaitEvent(t, "a call without prices", func(e *event.Event) bool { return e.Kind == event.KindInference })
	if ev.Price != event.PriceUnknown || ev.Cost != 0 {
		t.Errorf("without prices: %s %d", ev.Price, ev.Cost)
	}
	if row := calls(1); row.Unpriced != 1 || row.CostNanoUSD != 0 || row.TokensIn != 11 {
		t.Errorf("%+v", row)
	}

	if r := a.n.CLI(t, "prices", "import", file); r.Code != 0 || !strings.Contains(r.Stdout, "made-up-1 are in use: 1 model") {
		t.Fatalf("%s %s", r.Stdout, r.Stderr)
	}
	if r := a.n.CLI(t, "prices", "import", file); r.Code == 0 || !strings.Contains(r.Stderr, "there is a price table made-up-1 already") {
		t.Errorf("the same version again: %d %s", r.Code, r.Stderr)
	}
	const one = 8*2000 + 3*500 + 7*10000 // the double says 11 tokens in, 3 of them cached, and 7 out
	ask(body("priced", false), body("priced", true), body("else", false))
	for _, stream := range []bool{false, true} {
		ev := a.n.WaitEvent(t, "a call with a price", func(e *event.Event) bool { return e.Price == event.PriceKnown && e.Stream == stream })
		if ev.Cost != one || ev.PriceVersion != "made-up-1" || ev.PriceModel != "openai/priced" || ev.Estimated {
			t.Errorf("%+v", ev)
		}
	}
	if row := calls(4); row.CostNanoUSD != 2*one || row.Unpriced != 2 || row.Cached != 12 {
		t.Errorf("%+v", row)
	}
	m := a.n.Metrics(t)
	for name, v := range m {
		if strings.HasPrefix(name, "ringfence_inference_cost_dollars_total") && (v < 2*one/1e9*0.999 || v > 2*one/1e9*1.001 || !strings.Contains(name, `model="priced"`)) {
			t.Errorf("%s %v", name, v)
		}
	}
	if len(m) == 0 {
		t.Error("no metrics")
	}

	a.n.KillDaemon(t)
	a.w.near.do(func() { a.n.StartDaemon(t) })
	ask(body("priced", false))
	if row := calls(5); row.CostNanoUSD != 3*one {
		t.Errorf("after a daemon that was killed: %+v", row)
	}
	a.n.StopDaemon(t, syscall.SIGTERM)
	a.w.near.do(func() { a.n.StartDaemon(t) })
	if row := calls(5); row.CostNanoUSD != 3*one {
		t.Errorf("after another start: %+v", row)
	}

	export := a.n.CLI(t, "cost", "export", "--org", "acme").Stdout
	contains(t, "export", export, "day,org,team,agent,provider,model,calls", ",acme,pay,bot,openai,priced,4,0,0,1,0.0002625,", ",acme,pay,bot,openai,else,1,0,0,1,,")
	if r := a.n.CLI(t, "prices", "remove", "made-up-1"); r.Code != 0 {
		t.Error(r.Stderr)
	}
	ask(body("priced", false))
	if row := calls(6); row.CostNanoUSD != 3*one || row.Unpriced != 3 {
		t.Errorf("without the table again: %+v", row)
	}
}
