// SPDX-License-Identifier: Apache-2.0

// Package passfd reads the descriptors that came with a message on a unix
// socket (SCM_RIGHTS, unix(7)).
package passfd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const fdSize = 4

// Parse collects every descriptor in oob, the control bytes of one recvmsg.
// The descriptors belong to the caller, also those returned with an error:
// the kernel has installed them already.
func Parse(oob []byte) ([]int, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var fds []int
	for i := range msgs {
		h := msgs[i].Header
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			err = errors.New("a control message that is not SCM_RIGHTS")
			continue
		}
		// The library indexes past its slice on a length that is no multiple.
		if n := len(msgs[i].Data) % fdSize; n != 0 {
			err = fmt.Errorf("control message: %d bytes after the last descriptor", n)
			msgs[i].Data = msgs[i].Data[:len(msgs[i].Data)-n]
		}
		got, e := unix.ParseUnixRights(&msgs[i])
		if e != nil {
			err = e
		}
		fds = append(fds, got...)
	}
	return fds, err
}
