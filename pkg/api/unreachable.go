// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// devSocket is where `make start` in a checkout lets its daemon listen.
const devSocket = "/run/ringfence-dev/run/ringfence.sock"

// UnreachableError says that there is no keeper to talk to, and why.
type UnreachableError struct {
	Socket string
	Err    error
}

// Error names the socket and, where the cause is known, what to do.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("the daemon cannot be reached at %s: %v", e.Socket, errors.Unwrap(e))
}

// Unwrap returns the cause without the words of package net.
func (e *UnreachableError) Unwrap() error {
	var op *net.OpError
	if errors.As(e.Err, &op) {
		return op.Err
	}
	return e.Err
}

// Denied reports that the socket exists and its file mode refuses the caller.
func (e *UnreachableError) Denied() bool { return errors.Is(e.Err, fs.ErrPermission) }

// Remedy is what the caller can do.
func (e *UnreachableError) Remedy() string {
	switch {
	case e.Denied():
		return memberRemedy(socketGroup(e.Socket), ownName())
	case errors.Is(e.Err, fs.ErrNotExist), errors.Is(e.Err, syscall.ECONNREFUSED):
		return startRemedy(e.Socket, os.Getenv(SocketEnv), devSocket)
	}
	return ""
}

// startRemedy knows the daemon of a checkout, which nobody meant who asks for
// the usual socket.
func startRemedy(socket, env, dev string) string {
	if socket == DefaultSocket && env == "" {
		if st, err := os.Stat(dev); err == nil && st.Mode().Type() == fs.ModeSocket {
			return "there is the daemon of a checkout: export " + SocketEnv + "=" + dev
		}
	}
	return "start ringfenced (in a checkout: make start), or name its socket with --socket or " + SocketEnv
}

// memberRemedy makes a user a member of the operator group, "" for one that
// the daemon did not find when it started.
func memberRemedy(group, who string) string {
	if group != "" {
		return "ask an administrator to add you to the operator group (usermod -aG " + group + " " + who + "), then log in again"
	}
	return "ask an administrator to make the operator group and add you (groupadd --system ringfence, or the group that the daemon's configuration names; " +
		"usermod -aG ringfence " + who + ") and to restart the daemon, which looks for the group when it starts; then log in again"
}

// socketGroup names the group that may use a socket, "" if it is root's alone.
func socketGroup(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Gid == 0 {
		return ""
	}
	return groupName(sys.Gid)
}

// groupName is a group's name, or its number if it has none.
func groupName(gid uint32) string {
	n := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(n); err == nil {
		return g.Name
	}
	return n
}

func ownName() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "USER"
}
