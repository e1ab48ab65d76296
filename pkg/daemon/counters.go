// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"github.com/ringfence/ringfence/pkg/policy"
	"github.com/ringfence/ringfence/pkg/wire"
)

// counters are the keeper's samples for /metrics; names and labels are those
// of the table in package metrics.
func (d *Daemon) counters() []wire.Counter {
	var out []wire.Counter
	add := func(name string, v float64, labels ...string) {
		out = append(out, wire.Counter{Name: "ringfence_" + name, Labels: labels, Value: v})
	}
	d.kernelCounters(add)
	st := d.log.Stats()
	add("events_produced_total", float64(st.Produced))
	add("events_delivered_total", float64(st.Delivered))
	add("events_waiting", float64(st.Waiting))
	for reason, n := range st.Dropped {
		add("events_dropped_total", float64(n), reason)
	}
	add("audit_bytes", float64(st.Bytes))
	add("audit_commits_total", float64(st.Commits))
	add("audit_failures_total", float64(st.Failures))
	add("audit_full", flag(st.Full))
	add("audit_last_sequence", float64(st.Last))
	add("audit_segments", float64(st.Segments))
	problems := d.library.Problems()
	add("policy_documents", float64(len(d.library.Items())))
	add("policy_last_reload_successful", flag(len(problems) == 0))
	add("policy_problems", float64(len(problems)))
	add("policy_revision", float64(d.library.Snapshot().Revision()))
	add("sandboxes", float64(len(d.sandboxes.List())))
	add("sandboxes_learning", float64(len(d.learning())))
	for _, effect := range []policy.Effect{policy.RequireApproval, policy.Allow} {
		add("bpf_shadow_denials_total", float64(d.shadowDenials[effect].Load()), effect.String())
	}
	add("build_info", 1, d.version, "keeper")
	return out
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// kernelCounters leaves out what cannot be read: the scrape then lacks it.
func (d *Daemon) kernelCounters(add func(name string, v float64, labels ...string)) {
	if vs, err := d.fence.Verdicts(); err == nil {
		for _, v := range vs {
			verdict := "denied"
			if v.Allowed {
				verdict = "allowed"
			}
			add("bpf_verdicts_total", float64(v.Count), v.Hook.String(), verdict, v.Reason.String())
		}
	}
	if rs, err := d.fence.Losses(); err == nil {
		for _, r := range rs {
			add("bpf_records_kept_total", float64(r.Kept), r.Ring.String())
			add("bpf_records_lost_total", float64(r.Full), r.Ring.String(), "full")
			add("bpf_records_lost_total", float64(r.Throttled), r.Ring.String(), "throttled")
		}
	}
	add("flows_ended_total", float64(d.fence.EndedFlows()))
	if u, err := d.fence.Usage(); err == nil {
		add("kernel_table_entries", float64(u.Names), "names")
		add("kernel_table_entries", float64(u.CIDRs), "cidrs")
		add("kernel_table_entries", float64(u.Members), "members")
		add("kernel_table_entries", float64(u.Rates), "rates")
		add("kernel_table_entries", float64(u.Watched), "watched")
	}
}
