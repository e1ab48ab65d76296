// SPDX-License-Identifier: Apache-2.0

package gatewayd

import (
	"log/slog"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// short is a listener of a process that has no free descriptor for a while.
type short struct {
	*net.UnixListener
	errs []error
}

func (s *short) AcceptUnix() (*net.UnixConn, error) {
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return nil, err
	}
	return s.UnixListener.AcceptUnix()
}

func TestAKeeperConnectsAfterErrorsThatPass(t *testing.T) {
	addr := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixpacket"}
	l, err := net.ListenUnix("unixpacket", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.DialUnix("unixpacket", nil, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	uid, err := peerUID(c)
	if err != nil {
		t.Fatal(err)
	}
	if uid != 0 {
		t.Skip("only root may be a keeper")
	}
	log := slog.New(slog.DiscardHandler)
	conn := accept(&short{l, []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED}}, log)
	if conn == nil {
		t.Fatal("the first error ended it: no keeper could ever connect again")
	}
	conn.Close()
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	if accept(l, log) != nil {
		t.Error("a closed listener gave a connection")
	}
}
