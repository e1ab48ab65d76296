// SPDX-License-Identifier: Apache-2.0

// Command neighbour is what two sandboxes (or, for controls, two processes of
// one user) run to pass each other things and to attack each other:
//
//	neighbour hold PATH               keep every descriptor that comes over a unix socket
//	neighbour give PATH               hand out descriptors over a unix socket; see give.go
//	neighbour take PATH WHAT DO ARG   ask for one and do something with it
//	neighbour lend PATH               connect to a unix socket and pass the connection to descriptor 3
//	neighbour offer FILE              make everything that a neighbour could reach for; see offer.go
//
// take prints one line as the attempts program does: {name, ok, errno, detail}.
// The program is static (CGO_ENABLED=0), so it runs in any view.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: neighbour hold|give|take|lend|offer PATH ...")
		os.Exit(2)
	}
	path, rest := os.Args[2], os.Args[3:]
	switch os.Args[1] {
	case "hold":
		check(hold(path))
	case "give":
		check(give(path))
	case "take":
		if len(rest) != 3 {
			check(errors.New("take PATH WHAT DO ARG"))
		}
		r := result{Name: rest[0] + " " + rest[1]}
		r.report(take(path, rest[0], rest[1], rest[2]))
		check(json.NewEncoder(os.Stdout).Encode(r))
	case "lend":
		check(lend(path))
	case "offer":
		check(offer(path))
	default:
		check(fmt.Errorf("%s?", os.Args[1]))
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "neighbour:", err)
		os.Exit(1)
	}
}

// result is the line that take prints.
type result struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Errno  string `json:"errno"`
	Detail string `json:"detail"`
}

func (r *result) report(err error) {
	r.OK = err == nil
	if err == nil {
		return
	}
	r.Errno, r.Detail = "none", err.Error()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		r.Errno = unix.ErrnoName(errno)
	}
}

// listen binds a stream socket to a path that everybody may use.
func listen(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return 0, fmt.Errorf("bind %s: %w", path, err)
	}
	if path[0] != '@' {
		if err := unix.Chmod(path, 0o777); err != nil {
			return 0, err
		}
	}
	return fd, unix.Listen(fd, 16)
}

// hold accepts for ever, keeps what it is given and writes the count of it
// beside the socket.
func hold(path string) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	kept := 0
	for {
		c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err != nil {
			return err
		}
		_, fds, err := receive(c)
		if err != nil {
			return err
		}
		kept += len(fds)
		if err := os.WriteFile(path+".got", fmt.Append(nil, kept), 0o644); err != nil {
			return err
		}
	}
}

// lend connects as this process, hands the connection over and lives on, for
// the other side may ask who connected.
func lend(path string) error {
	c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := unix.Sendmsg(3, []byte{1}, unix.UnixRights(c), nil, 0); err != nil {
		return err
	}
	unix.Close(c)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// receive reads one message with descriptors.
func receive(c int) (text string, fds []int, err error) {
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*16))
	n, oobn, _, _, err := unix.Recvmsg(c, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return "", nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return "", nil, err
	}
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return "", nil, err
		}
		fds = append(fds, got...)
	}
	return string(b[:n]), fds, nil
}
