// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// tinyELF is a static program with one page of code and nothing else.
func tinyELF(code []byte, wide bool) []byte {
	const base = 0x400000
	le := binary.LittleEndian
	b := []byte("\x7fELF\x02\x01\x01")
	head, machine := 64+56, uint16(62)
	if !wide {
		b[4] = 1
		head, machine = 52+32, 3
	}
	b = append(b, make([]byte, 16-len(b))...)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	size := uint64(head + len(code))
	if wide {
		for _, v := range []uint64{base + uint64(head), 64, 0} { // entry, phoff, shoff
			b = le.AppendUint64(b, v)
		}
		b = le.AppendUint32(b, 0)
		for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
			b = le.AppendUint16(b, v)
		}
		b = le.AppendUint32(b, 1) // PT_LOAD
		b = le.AppendUint32(b, 5)
		for _, v := range []uint64{0, base, base, size, size, 0x1000} {
			b = le.AppendUint64(b, v)
		}
	} else {
		for _, v := range []uint32{base + uint32(head), 52, 0, 0} {
			b = le.AppendUint32(b, v)
		}
		for _, v := range []uint16{52, 32, 1, 0, 0, 0} {
			b = le.AppendUint16(b, v)
		}
		for _, v := range []uint32{1, 0, base, base, uint32(size), uint32(size), 5, 0x1000} {
			b = le.AppendUint32(b, v)
		}
	}
	return append(b, code...)
}

// exitWith42 is exit(42) in the i386 table: mov eax,1; mov ebx,42; int 0x80;
// then, had that not ended the process, ud2.
var exitWith42 = []byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80, 0x0f, 0x0b}

func TestForeignABIKills(t *testing.T) {
	filter := filterFile(t, Coding())
	for _, c := range []struct {
		name string
		wide bool
	}{{"int 0x80 from a 64-bit program", true}, {"an i386 program", false}} {
		t.Run(c.name, func(t *testing.T) {
			prog := filepath.Join(t.TempDir(), "tiny")
			if err := os.WriteFile(prog, tinyELF(exitWith42, c.wide), 0o755); err != nil {
				t.Fatal(err)
			}
			control := self(t, "exec", "", prog)
			if err := control.Run(); control.ProcessState.ExitCode() != 42 {
				t.Skipf("CONFIG_IA32_EMULATION is not in this kernel (control: %v)", err)
			}
			if err := self(t, "exec", filter, prog).Run(); signalled(err) != syscall.SIGSYS {
				t.Errorf("inside: %v, want SIGSYS", err)
			}
		})
	}
}

func TestX32NumbersAreRefused(t *testing.T) {
	calls := []call{
		{"x32 getpid", 39 | x32Bit, [6]uint64{}},
		{"x32 ptrace", 521 | x32Bit, bad},
		{"x32 socket", unix.SYS_SOCKET | x32Bit, [6]uint64{unix.AF_PACKET, unix.SOCK_RAW, 0}},
	}
	for i, e := range probe(t, filterFile(t, Coding()), calls) {
		if e != syscall.ENOSYS {
			t.Errorf("%s: %v, want ENOSYS", calls[i].Name, e)
		}
	}
	if probe(t, "", calls[:1])[0] == syscall.ENOSYS {
		t.Log("CONFIG_X86_X32_ABI is not in this kernel: the control cannot show a difference; TestPrologueRefusesForeignNumbers does")
	}
}
