// SPDX-License-Identifier: Apache-2.0

// Package fact is what the examine program finds out about a kernel.
package fact

// Kernel is what one kernel has for Ringfence.
type Kernel struct {
	Landlock int             `json:"landlockABI"`
	Features map[string]bool `json:"features"`
	Idmap    map[string]bool `json:"idmap"`   // file systems that can be mounted with other owners
	Missing  []string        `json:"missing"` // what of it Ringfence cannot do without
}

// Report is what is printed: details beside what is compared.
type Report struct {
	Kernel  Kernel            `json:"kernel"`
	Release string            `json:"release"`
	LSM     string            `json:"lsm"`
	Details map[string]string `json:"details"` // feature that is lacking -> why
}
