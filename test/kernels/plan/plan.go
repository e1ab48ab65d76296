// SPDX-License-Identifier: Apache-2.0

// Package plan is what the host tells a guest to do, and what the guest tells
// of it: JSON, one message a line, on the guest's second serial line.
package plan

// Job is one program to run in the guest.
type Job struct {
	Name    string   `json:"name"`
	Dir     string   `json:"dir"`
	Argv    []string `json:"argv"`
	Env     []string `json:"env"`
	Seconds int      `json:"seconds"` // then it is killed
}

// Plan is everything a guest does before it powers off.
type Plan struct {
	Jobs    []Job `json:"jobs"`
	Systemd bool  `json:"systemd,omitempty"` // it is process 1 while they run
}

// Kinds of messages.
const (
	Line = "line" // the job printed Text, without its newline
	End  = "end"  // the job ended with status Code; Text is not empty if it was killed or not started
	Done = "done" // the whole plan is
	Fail = "fail" // the guest itself does not work: Text
)

// Message is one line of what the guest tells.
type Message struct {
	Kind    string  `json:"kind"`
	Job     string  `json:"job,omitempty"`
	Text    string  `json:"text,omitempty"`
	Code    int     `json:"code,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}
