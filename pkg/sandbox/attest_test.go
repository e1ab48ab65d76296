// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
)

func TestAttestationOfAProcess(t *testing.T) {
	good := map[string]string{
		"Uid": "1001\t1001\t1001\t1001", "Gid": "1002\t1002\t1002\t1002", "Groups": "1003 1004",
		"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "2",
	}
	w := &expectation{uid: 1001, operators: 77, filters: 2}
	if errs := w.checkStatus(good); len(errs) > 0 {
		t.Fatalf("the good one: %v", errs)
	}
	for _, c := range []struct{ field, value, want string }{
		{"Uid", "1001\t0\t1001\t1001", "host uid 0"},
		{"Uid", "1001\t1001\t1009\t1001", "runs as uid 1009"},
		{"Gid", "1002\t0\t1002\t1002", "host gid 0"},
		{"Gid", "77\t77\t77\t77", "operators' group"},
		{"Groups", "1003 0", "host groups 0"},
		{"Groups", "1003 77", "operators' group"},
		{"CapBnd", "0000000000000400", "CapBnd"},
		{"CapEff", "", "CapEff"},
		{"NoNewPrivs", "0", "no_new_privs"},
		{"Seccomp", "0", "no system call filter"},
		{"Seccomp_filters", "1", "1 system call filters where init has 2"},
	} {
		bad := maps.Clone(good)
		bad[c.field] = c.value
		if err := errors.Join(w.checkStatus(bad)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %q: %v, want %q", c.field, c.value, err, c.want)
		}
	}
}

func TestAttestationOfNamespaces(t *testing.T) {
	host, err := namespacesOf("self")
	if err != nil {
		t.Fatal(err)
	}
	own := map[string]uint64{}
	for _, n := range namespaces {
		own[n] = host[n] + 1
	}
	if err := ownNamespaces(own, host); err != nil {
		t.Error(err)
	}
	for _, n := range namespaces {
		shared := maps.Clone(own)
		shared[n] = host[n]
		if err := ownNamespaces(shared, host); (err == nil) != (n == "user") {
			t.Errorf("shared %s: %v", n, err)
		}
		delete(shared, n)
		if err := ownNamespaces(shared, host); err == nil {
			t.Errorf("%s was not noted and nobody minds", n)
		}
		want := maps.Clone(host)
		want[n]++ // the sandbox's; this process is in another
		w := &expectation{namespaces: want}
		if err := w.attestProcess(os.Getpid()); err == nil || !strings.Contains(err.Error(), "another "+n+" namespace") {
			t.Errorf("in another %s namespace: %v", n, err)
		}
	}
	if _, err := namespacesOf("999999999"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that has ended: %v", err)
	}
}
