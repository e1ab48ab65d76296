// SPDX-License-Identifier: Apache-2.0

package passfd

import (
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	ragged := unix.UnixRights(7, 8)
	ragged[0]++ // one byte more than two descriptors
	ragged = append(ragged, make([]byte, 8)...)
	credentials := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid())})
	tests := []struct {
		name string
		oob  []byte
		want []int
		ok   bool
	}{
		{"nothing", nil, nil, true},
		{"two", unix.UnixRights(3, 4), []int{3, 4}, true},
		{"two messages", append(unix.UnixRights(3), unix.UnixRights(4)...), []int{3, 4}, true},
		{"a byte too many", ragged, []int{7, 8}, false},
		{"credentials before", append(slices.Clone(credentials), unix.UnixRights(5)...), []int{5}, false},
		{"a length beyond the end", unix.UnixRights(3)[:18], nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.oob)
			if !slices.Equal(got, tt.want) || (err == nil) != tt.ok {
				t.Errorf("%v, %v; want %v, ok=%v", got, err, tt.want, tt.ok)
			}
		})
	}
}

// What the kernel says of the descriptors that it installed.
func TestParseReceived(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(pair[0], pair[1], pair[0]), nil, 0); err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 1), make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(pair[1], b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := Parse(oob[:n])
	if err != nil || len(fds) != 3 {
		t.Fatalf("%v, %v; want three descriptors", fds, err)
	}
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			t.Errorf("descriptor %d is not open: %v", fd, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(unix.UnixRights(1, 2))
	f.Add([]byte{17, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, oob []byte) {
		fds, _ := Parse(oob)
		if len(fds)*fdSize > len(oob) {
			t.Errorf("%d descriptors out of %d bytes", len(fds), len(oob))
		}
	})
}
