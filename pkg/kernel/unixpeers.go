// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of linux/unix_diag.h.
const (
	unixShowPeer = 1 << 2 // UDIAG_SHOW_PEER
	attrUnixPeer = 2      // UNIX_DIAG_PEER
)

// unixReq is struct unix_diag_req.
type unixReq struct {
	Family, Proto uint8
	Pad           uint16
	States        uint32
	Inode, Show   uint32
	Cookie        [2]uint32
}

// unixMsg is struct unix_diag_msg.
type unixMsg struct {
	Family, Type, State, Pad uint8
	Inode                    uint32
	Cookie                   [2]uint32
}

// UnixPeers says of each connected unix socket that was made in a network
// namespace which socket is at its other end, by their inodes: 0 for one that
// has none, because it was closed or nobody has accepted it yet.
// It is refused with [ErrSocketHeld] as long as one before it, of the same held,
// is under way in the kernel.
func UnixPeers(netnsFD int, held *atomic.Bool) (map[uint64]uint64, error) {
	d, err := newDiagTurn(netnsFD, held)
	if err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	defer d.close()
	peers, err := within(d, func(q *diag) (map[uint64]uint64, error) { return q.unixPeers() })
	if err != nil {
		return nil, fmt.Errorf("list unix sockets: %w", err)
	}
	return peers, nil
}

func (d *diag) unixPeers() (map[uint64]uint64, error) {
	req := unixReq{Family: unix.AF_UNIX, States: ^uint32(0), Show: unixShowPeer}
	if err := diagSend(d, sockDiagByFamily, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, req); err != nil {
		return nil, err
	}
	out := map[uint64]uint64{}
	err := d.messages(func(body []byte) error {
		inode, peer, connected, err := unixPeer(body)
		if connected {
			out[inode] = peer
		}
		return err
	})
	return out, err
}

// unixPeer reads one message of the list.
func unixPeer(body []byte) (inode, peer uint64, connected bool, err error) {
	m, err := load[unixMsg](body)
	if err != nil {
		return 0, 0, false, err
	}
	v := attribute(body[unsafe.Sizeof(*m):], attrUnixPeer)
	if len(v) < 4 {
		return uint64(m.Inode), 0, false, nil
	}
	return uint64(m.Inode), uint64(binary.NativeEndian.Uint32(v)), true, nil
}
