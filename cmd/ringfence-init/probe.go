// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/ringfence/ringfence/pkg/confine"
	"golang.org/x/sys/unix"
)

// tryWalls makes each probe from behind all walls and returns the kernel's
// answers. An error means that one could not be made: then it proves nothing.
func tryWalls() ([]confine.ProbeResult, error) {
	var out []confine.ProbeResult
	for _, p := range confine.Probes() {
		var err error
		switch p {
		case confine.ProbeConnect:
			err = tryConnect()
		case confine.ProbeOpen:
			err = tryOpen()
		case confine.ProbeCall:
			err = unix.Setns(-1, 0)
		default:
			return nil, fmt.Errorf("attest: probe %d is unknown", p)
		}
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			return nil, fmt.Errorf("attest: probe of the %s: %w", p.Layer(), err)
		}
		out = append(out, confine.ProbeResult{Probe: p, Errno: errno})
	}
	return out, nil
}

// errNoSocket hides the errno: it is no answer to the connect.
var errNoSocket = errors.New("no socket to connect")

func tryConnect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %v", errNoSocket, err)
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrInet4{Addr: confine.ProbeAddr.Addr().As4(), Port: int(confine.ProbeAddr.Port())})
}

func tryOpen() error {
	fd, err := unix.Open(confine.ProbeFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}
