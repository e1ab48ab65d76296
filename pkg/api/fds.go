// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/pkg/passfd"
)

// The descriptor message of an upgraded connection: one header of fixed size
// with, in the same message, one descriptor for each bit that is set in the
// mask, in the order of the bits.
//
//	byte 0..3  "RFFD"
//	byte 4     version, 1
//	byte 5     mask: 1 workspace, 2 stdin, 4 stdout, 8 stderr, 16 status
//	byte 6..7  number of descriptors, big-endian
const (
	fdsMagic   = "RFFD"
	fdsVersion = 1
	fdsHeader  = 8
	fdsSlots   = 5
	fdsMask    = 1<<fdsSlots - 1
)

// sendFiles writes the descriptor message. The caller keeps its descriptors.
func sendFiles(c *net.UnixConn, f *Files) error {
	var files []*os.File
	head := [fdsHeader]byte{0: fdsMagic[0], 1: fdsMagic[1], 2: fdsMagic[2], 3: fdsMagic[3], 4: fdsVersion}
	for i, p := range f.slots() {
		if *p != nil {
			head[5] |= 1 << i
			files = append(files, *p)
		}
	}
	binary.BigEndian.PutUint16(head[6:], uint16(len(files)))
	fds := make([]int, len(files))
	for i, f := range files {
		if err := withFD(f, func(fd int) error { fds[i] = fd; return nil }); err != nil {
			return fmt.Errorf("send descriptors: %w", err)
		}
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	n, oobn, err := c.WriteMsgUnix(head[:], oob, nil)
	runtime.KeepAlive(files)
	if err != nil {
		return fmt.Errorf("send descriptors: %w", err)
	}
	if n != len(head) || oobn != len(oob) {
		return errors.New("send descriptors: short write")
	}
	return nil
}

// recvFiles reads the descriptor message of a client that is not trusted. On
// error nothing stays open. The descriptors carry the close-on-exec flag
// (net sets MSG_CMSG_CLOEXEC).
func recvFiles(c *net.UnixConn) (*Files, error) {
	var head [fdsHeader + 1]byte // one more, to see that nothing follows
	oob := make([]byte, unix.CmsgSpace(fdsSlots*4)+unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(head[:], oob)
	fds, perr := passfd.Parse(oob[:max(oobn, 0)])
	files := &Files{}
	if err = errors.Join(err, perr); err == nil {
		err = checkFilesHeader(head[:n], flags, len(fds))
	}
	if err != nil {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("descriptor message: %w", err)
	}
	for i, p := range files.slots() {
		if head[5]&(1<<i) != 0 {
			*p = os.NewFile(uintptr(fds[0]), slotNames[i])
			fds = fds[1:]
		}
	}
	return files, nil
}

var slotNames = [fdsSlots]string{"workspace", "stdin", "stdout", "stderr", "status"}

func checkFilesHeader(head []byte, flags, nfds int) error {
	switch {
	case len(head) == 0:
		return errors.New("the connection was closed")
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return errors.New("too many descriptors")
	case len(head) != fdsHeader:
		return fmt.Errorf("%d bytes instead of %d", len(head), fdsHeader)
	case string(head[:4]) != fdsMagic:
		return errors.New("no descriptor header")
	case head[4] != fdsVersion:
		return fmt.Errorf("version %d, this server knows %d", head[4], fdsVersion)
	case head[5]&^byte(fdsMask) != 0:
		return fmt.Errorf("unknown descriptors in mask %#x", head[5])
	}
	want := 0
	for i := range fdsSlots {
		want += int(head[5] >> i & 1)
	}
	if said := int(binary.BigEndian.Uint16(head[6:])); said != want || nfds != want {
		return fmt.Errorf("mask names %d descriptors, header %d, received %d", want, said, nfds)
	}
	return nil
}

// checkFiles refuses descriptors that must not reach a sandbox or the keeper's
// launch code. needStdio: the three of stdio must be there; else none may be.
func checkFiles(f *Files, allowWorkspace, needStdio bool) error {
	if f.Workspace != nil {
		if !allowWorkspace {
			return errors.New("a workspace descriptor has no place here")
		}
		if err := withFD(f.Workspace, checkWorkspace); err != nil {
			return fmt.Errorf("workspace: %w", err)
		}
	}
	for i, s := range f.Stdio {
		switch {
		case s == nil && needStdio:
			return fmt.Errorf("%s is missing", slotNames[i+1])
		case s != nil && !needStdio:
			return fmt.Errorf("%s has no place in a detached or terminal launch", slotNames[i+1])
		case s == nil:
			continue
		}
		if err := withFD(s, CheckStdio); err != nil {
			return fmt.Errorf("%s: %w", slotNames[i+1], err)
		}
	}
	if f.Status != nil {
		if err := withFD(f.Status, checkStatus); err != nil {
			return fmt.Errorf("status socket: %w", err)
		}
	}
	return nil
}

// withFD lends the descriptor without [os.File.Fd], which would make the open
// file description, shared with the client, blocking.
func withFD(f *os.File, use func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var useErr error
	if err := rc.Control(func(fd uintptr) { useErr = use(int(fd)) }); err != nil {
		return err
	}
	return useErr
}

func checkWorkspace(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return errors.New("not a directory")
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if fl&unix.O_PATH == 0 {
		return errors.New("not opened with O_PATH")
	}
	return nil
}

// CheckStdio reports why a descriptor may not become standard input or output
// of a sandbox: only a FIFO, a regular file of an ordinary file system and
// /dev/null may. A client relays anything else through pipes.
func CheckStdio(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if fl&unix.O_PATH != 0 {
		return errors.New("an O_PATH descriptor")
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return nil // a pipe or named pipe
	case unix.S_IFREG:
		return checkFileSystem(fd)
	case unix.S_IFCHR:
		if st.Rdev == unix.Mkdev(1, 3) {
			return nil // /dev/null
		}
		return errors.New("a device other than /dev/null")
	case unix.S_IFSOCK:
		return errors.New("a socket")
	case unix.S_IFDIR:
		return errors.New("a directory")
	}
	return errors.New("neither a FIFO, a regular file nor /dev/null")
}

// checkFileSystem refuses regular files that are doors into the kernel or into
// other processes (/proc/PID/mem), not storage.
func checkFileSystem(fd int) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	switch int64(fs.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.BPF_FS_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC,
		unix.NSFS_MAGIC, unix.EFIVARFS_MAGIC, unix.PSTOREFS_MAGIC:
		return errors.New("a file of a kernel file system")
	}
	return nil
}

func checkStatus(fd int) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("not a socket: %w", err)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX || typ != unix.SOCK_SEQPACKET {
		return errors.New("not a unix SEQPACKET socket")
	}
	return nil
}
