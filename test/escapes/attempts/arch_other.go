// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package main

const map32 = 0

type legacyMode struct {
	name, control string
	make          func(path string) error
}

func legacyModes() []legacyMode { return nil }

func abiAttempts() []*Attempt { return futureAttempts() }

// archHelper has nothing to help with on this architecture.
func archHelper([]string) bool { return false }

func archPrivileged() []privileged { return nil }
