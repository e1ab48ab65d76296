// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// reviewed is the highest system call number (the numbers from 424 on are the
// same on every architecture) that somebody compared with the table: 469 is
// file_setattr, Linux 6.17. Raise it only together with the table.
const reviewed = 469

// newer names calls of the table that libseccomp may be too old to know. A
// rule for an unknown name is sound only while its number is above the
// filter's limit; Compile checks that.
var newer = map[string]uint32{
	"fchmodat2": 452, "statmount": 457, "listmount": 458, "open_tree_attr": 467,
}

// hidden are calls that put what matters behind a pointer.
var hidden = map[string]string{
	"clone3":  "flags behind a pointer; libc falls back to clone",
	"openat2": "mode behind a pointer; callers fall back to openat",
}

const (
	x32Bit      = 0x40000000
	uretprobe   = 335 // x86-64: issued by the kernel's own trampoline, Linux 6.11
	retENOSYS   = unix.SECCOMP_RET_ERRNO | uint32(syscall.ENOSYS)
	retKill     = uint32(unix.SECCOMP_RET_KILL_PROCESS)
	offNr       = 0
	offArch     = 4
	wordLen     = 4
	maxProgram  = 4096 // BPF_MAXINSNS
	insnLen     = 8
	sameAsLimit = 1024 // numbers searched for names
)

type span struct{ lo, hi uint32 }

// limits is what the prologue checks numbers against.
type limits struct {
	max     uint32 // above: ENOSYS
	unknown []span // below max but without a name: ENOSYS
}

// prologue returns the instructions in front of libseccomp's program. They
// fall through to it when the number may be judged by the table.
func prologue(audit uint32, x32 bool, l limits, enosys []uint32) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: wordLen},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: audit, SkipTrue: 1},
		bpf.RetConstant{Val: retKill},
		bpf.LoadAbsolute{Off: offNr, Size: wordLen},
	}
	if x32 {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32Bit, SkipFalse: 1}, bpf.RetConstant{Val: retENOSYS})
	}
	p = append(p, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: l.max, SkipFalse: 1}, bpf.RetConstant{Val: retENOSYS})
	for _, s := range l.unknown {
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: s.lo, SkipFalse: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: s.hi, SkipTrue: 1},
			bpf.RetConstant{Val: retENOSYS})
	}
	for _, nr := range enosys {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, bpf.RetConstant{Val: retENOSYS})
	}
	return p
}

// encode appends instructions as struct sock_filter, little endian.
func encode(dst []byte, prog []bpf.Instruction) ([]byte, error) {
	for _, ins := range prog {
		raw, err := ins.Assemble()
		if err != nil {
			return nil, err
		}
		dst = binary.LittleEndian.AppendUint16(dst, raw.Op)
		dst = append(dst, raw.Jt, raw.Jf)
		dst = binary.LittleEndian.AppendUint32(dst, raw.K)
	}
	return dst, nil
}
