// SPDX-License-Identifier: Apache-2.0

package api

import (
	"github.com/ringfence/ringfence/pkg/audit"
	"github.com/ringfence/ringfence/pkg/policy"
)

// NewAuditReport puts the report of a verification of dir in the form of the
// API.
func NewAuditReport(dir string, r audit.Report) AuditReport {
	out := AuditReport{
		OK: r.State == audit.Consistent && r.Bad == nil, State: r.State.String(), Dir: dir,
		Segments: r.Segments, Records: r.Records, Removed: r.Removed,
		LastSeq: r.Head.Sequence, AnchoredTo: r.Anchored, Torn: r.Torn, Text: r.String(),
	}
	if r.Head.Sequence > 0 {
		out.Head = r.Head.String()
	}
	if r.Bad != nil {
		out.FirstBad = &BadEntry{Segment: r.Bad.Segment, Line: r.Bad.Line, Seq: r.Bad.Sequence, Why: r.Bad.Why}
	}
	return out
}

// NewCheckResult puts the mistakes in documents in the form of the API.
func NewCheckResult(problems []policy.Problem) CheckResult {
	out := CheckResult{OK: len(problems) == 0, Problems: make([]Problem, 0, len(problems))}
	for _, p := range problems {
		out.Problems = append(out.Problems, Problem{File: p.File, Line: p.Line, Col: p.Col, Msg: p.Msg, Hint: p.Hint})
	}
	return out
}
