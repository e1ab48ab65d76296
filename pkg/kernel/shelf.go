// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// shelf keeps links and maps alive for this process without a descriptor of
// each: a bpffs that is mounted nowhere, behind one descriptor. What a thousand
// sandboxes have would be some ten thousand. Whoever removes or replaces the
// pins that are for the next keeper changes nothing of what lies here, and all
// of it ends with the process, however that ends.
type shelf struct {
	root   *os.File
	places atomic.Uint64 // given out, so that nobody takes another's names
}

// object is a link or a map.
type object interface{ FD() int }

func newShelf() (*shelf, error) {
	fd, err := unix.Fsopen("bpf", unix.FSOPEN_CLOEXEC) // Linux 5.2
	if err != nil {
		return nil, fmt.Errorf("a bpffs of our own: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.FsconfigSetString(fd, "mode", "0700"); err != nil {
		return nil, fmt.Errorf("a bpffs of our own: %w", err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("a bpffs of our own: %w", err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a bpffs of our own: %w", err)
	}
	return &shelf{root: os.NewFile(uintptr(mount), "shelf")}, nil
}

func (s *shelf) path(name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", s.root.Fd(), name)
}

// put keeps o under a name that is free. The library's Pin would move a pin
// that o has elsewhere.
func (s *shelf) put(name string, o any) error {
	obj, ok := o.(object)
	if !ok {
		return fmt.Errorf("keep %s: %T has no descriptor", name, o)
	}
	_, err := s.call(unix.BPF_OBJ_PIN, name, obj.FD())
	runtime.KeepAlive(o)
	if err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// call is BPF_OBJ_PIN or BPF_OBJ_GET.
func (s *shelf) call(command uintptr, name string, fd int) (int, error) {
	path, err := unix.BytePtrFromString(s.path(name))
	if err != nil {
		return -1, err
	}
	attr := struct { // of union bpf_attr
		path      uint64
		fd, flags uint32
	}{path: uint64(uintptr(unsafe.Pointer(path))), fd: uint32(fd)}
	r, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(path)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}

// attachment is what the kernel says a link connects; 0 for a cgroup or a
// namespace that is gone or is none.
type attachment struct {
	program ebpf.ProgramID
	cgroup  uint64
	netns   uint32
}

// attachment asks for a link that was put here. It is asked for nine a sandbox in
// every look at it, and the library's way of opening a link costs several times
// as much.
func (s *shelf) attachment(name string) (attachment, error) {
	fd, err := s.call(unix.BPF_OBJ_GET, name, 0)
	if err != nil {
		return attachment{}, err
	}
	defer unix.Close(fd)
	var info struct { // struct bpf_link_info of cgroups and of namespaces (5.8)
		kind, id, program, _ uint32
		target               uint64
		_                    [64]byte
	}
	attr := struct { // of union bpf_attr
		fd, size uint32
		info     uint64
	}{uint32(fd), uint32(unsafe.Sizeof(info)), uint64(uintptr(unsafe.Pointer(&info)))}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_OBJ_GET_INFO_BY_FD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&info)
	if errno != 0 {
		return attachment{}, errno
	}
	a := attachment{program: ebpf.ProgramID(info.program)}
	switch info.kind {
	case unix.BPF_LINK_TYPE_CGROUP:
		a.cgroup = info.target
	case unix.BPF_LINK_TYPE_NETNS:
		a.netns = *(*uint32)(unsafe.Pointer(&info.target)) // the attach type follows
	default:
		return attachment{}, fmt.Errorf("it is a link of kind %d", info.kind)
	}
	return a, nil
}

// link opens a link that was put here. The caller closes it.
func (s *shelf) link(name string) (link.Link, error) { return link.LoadPinnedLink(s.path(name), nil) }

// sockets opens a map that was put here. The caller closes it.
func (s *shelf) sockets(name string) (*ebpf.Map, error) { return ebpf.LoadPinnedMap(s.path(name), nil) }

// drop lets go of what is there under a name.
func (s *shelf) drop(name string) error {
	if err := unix.Unlink(s.path(name)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("let go of %s: %w", name, err)
	}
	return nil
}

// close lets go of everything.
func (s *shelf) close() error {
	if s == nil {
		return nil
	}
	return s.root.Close()
}
