// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"slices"
	"strings"
)

// RejectedName counts values that were not in the table or had wrong labels.
const RejectedName = "ringfence_metrics_rejected_total"

// table names every metric of the product, in order of name (sorted when the
// program starts; read only after that).
var table = sorted([]Metric{
	{"ringfence_audit_bytes", "Size of all segments of the event log in bytes.", GaugeType, nil},
	{"ringfence_audit_commits_total", "Batches of events that were written and synced.", CounterType, nil},
	{"ringfence_audit_failures_total", "Batches of events that could not be written.", CounterType, nil},
	{"ringfence_audit_full", "1 while the event log has no space left, else 0.", GaugeType, nil},
	{"ringfence_audit_last_sequence", "Sequence of the last durable event.", GaugeType, nil},
	{"ringfence_audit_segments", "Segments of the event log.", GaugeType, nil},
	{"ringfence_bpf_records_kept_total", "Kernel records that were delivered, by ring.", CounterType, []string{"ring"}},
	{"ringfence_bpf_records_lost_total", "Kernel records that found no room, by ring and reason.", CounterType, []string{"ring", "reason"}},
	{"ringfence_bpf_shadow_denials_total", "Connections refused in the kernel that rules in shadow mode would not have refused, by the effect they would have had.", CounterType, []string{"effect"}},
	{"ringfence_bpf_verdicts_total", "Verdicts of the kernel programs, by hook, verdict and reason.", CounterType, []string{"hook", "verdict", "reason"}},
	{"ringfence_build_info", "Always 1; the labels say what is running.", GaugeType, []string{"version", "component"}},
	{"ringfence_channel_malformed_total", "Malformed messages on private channels, by channel.", CounterType, []string{"channel"}},
	{"ringfence_dns_questions_total", "Questions to the resolver, by verdict and type.", CounterType, []string{"verdict", "type"}},
	{"ringfence_egress_verdicts_total", "Decisions of the gateway about connections, by verdict and reason.", CounterType, []string{"verdict", "reason"}},
	{"ringfence_events_delivered_total", "Events that are durable in the log.", CounterType, nil},
	{"ringfence_events_dropped_total", "Events that could not be kept, by reason.", CounterType, []string{"reason"}},
	{"ringfence_events_produced_total", "Events handed to the log.", CounterType, nil},
	{"ringfence_events_total", "Events by kind and verdict.", CounterType, []string{"kind", "verdict"}},
	{"ringfence_events_waiting", "Events handed to the log and not yet durable.", GaugeType, nil},
	{"ringfence_flows_ended_total", "Sockets of sandboxes that were ended in the kernel because a new policy denies them.", CounterType, nil},
	{"ringfence_gateway_bytes_total", "Bytes of finished connections and requests; in is towards the sandbox.", CounterType, []string{"direction"}},
	{"ringfence_gateway_connections", "Connections of sandboxes that the gateway serves now.", GaugeType, nil},
	{"ringfence_gateway_connections_total", "Connections of sandboxes that the gateway accepted.", CounterType, nil},
	{"ringfence_gateway_datagram_flows", "Pairs of a sandbox's UDP socket and a destination that the gateway relays for now.", GaugeType, nil},
	{"ringfence_gateway_datagrams_lost_total", "Datagrams of sandboxes and answers that were not passed on, by reason.", CounterType, []string{"reason"}},
	{"ringfence_gateway_datagrams_total", "Datagrams that the gateway passed on; in is towards the sandbox.", CounterType, []string{"direction"}},
	{"ringfence_gateway_events_pending", "Places taken in the gateway's event buffer.", GaugeType, nil},
	{"ringfence_gateway_refused_event_buffer_total", "Connections, questions and requests refused because the event buffer was full.", CounterType, nil},
	{"ringfence_gateway_restarts_total", "Times the keeper had to start the gateway again.", CounterType, nil},
	{"ringfence_http_requests_total", "Inspected HTTP requests, by verdict and status class.", CounterType, []string{"verdict", "status"}},
	{"gen_ai_client_operation_duration_seconds", "Time that model calls took; OpenTelemetry's gen_ai.client.operation.duration.", HistogramType, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"}},
	{"gen_ai_client_token_usage", "Tokens of model calls; OpenTelemetry's gen_ai.client.token.usage.", HistogramType, []string{"gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"}},
	{"ringfence_inference_cost_dollars_total", "What model calls cost in US dollars, by provider and the entry of the price table.", CounterType, []string{"provider", "model"}},
	{"ringfence_inference_priced_total", "Model calls by what was known of their price: known, assumed, partial, estimated, unknown.", CounterType, []string{"price"}},
	{"ringfence_inference_duration_seconds_total", "Time spent on model calls, by provider.", CounterType, []string{"provider"}},
	{"ringfence_inference_limited_total", "Model calls that a rate refused, by what there was no room in.", CounterType, []string{"reason"}},
	{"ringfence_inference_requests_total", "Model calls, by provider, verdict and status class.", CounterType, []string{"provider", "verdict", "status"}},
	{"ringfence_inference_tokens_total", "Tokens of model calls, by provider and type.", CounterType, []string{"provider", "type"}},
	{"ringfence_kernel_table_entries", "Entries in the kernel's tables, by table.", GaugeType, []string{"table"}},
	{"ringfence_policy_documents", "Policy documents in force.", GaugeType, nil},
	{"ringfence_policy_last_reload_successful", "1 if the last change of the policy was accepted, else 0.", GaugeType, nil},
	{"ringfence_policy_problems", "Mistakes in documents that are present but not in force.", GaugeType, nil},
	{"ringfence_policy_revision", "Revision of the policy in force.", GaugeType, nil},
	{RejectedName, "Metric values that were dropped because they are not in the table.", CounterType, nil},
	{"ringfence_sandbox_starts_total", "Sandboxes that were asked for, by result.", CounterType, []string{"result"}},
	{"ringfence_sandboxes", "Sandboxes running now.", GaugeType, nil},
	{"ringfence_sandboxes_learning", "Sandboxes that learn (run --learn): TCP that no rule speaks of is let through.", GaugeType, nil},
	{"ringfence_shadow_decisions_total", "Decisions of the gateway that rules in shadow mode would have made otherwise, by kind of event, verdict and the effect they would have had.", CounterType, []string{"kind", "verdict", "effect"}},
	{"ringfence_up", "1 if the keeper answered the scrape, else 0.", GaugeType, nil},
})

func sorted(t []Metric) []Metric {
	slices.SortFunc(t, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return t
}
