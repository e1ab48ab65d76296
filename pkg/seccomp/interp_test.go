// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// run interprets the classic BPF subset that seccomp takes. It knows nothing
// of libseccomp, so it is an independent reading of what was compiled.
func run(t testing.TB, prog []byte, nr, arch uint32, args [6]uint64) uint32 {
	t.Helper()
	var data [64]byte
	binary.LittleEndian.PutUint32(data[0:], nr)
	binary.LittleEndian.PutUint32(data[4:], arch)
	for i, a := range args {
		binary.LittleEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	for pc := 0; pc < len(prog)/insnLen; pc++ {
		ins := prog[pc*insnLen:]
		op, jt, jf, k := binary.LittleEndian.Uint16(ins), ins[2], ins[3], binary.LittleEndian.Uint32(ins[4:])
		skip := func(taken bool) {
			if taken {
				pc += int(jt)
			} else {
				pc += int(jf)
			}
		}
		switch op {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.LittleEndian.Uint32(data[k:])
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			skip(acc == k)
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			skip(acc > k)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			skip(acc >= k)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			skip(acc&k != 0)
		case unix.BPF_RET | unix.BPF_K:
			return k
		default:
			t.Fatalf("instruction %d: opcode %#x", pc, op)
		}
	}
	t.Fatal("the program ran off its end")
	return 0
}

// interesting are register values around everything the table compares with.
func interesting(rules []Rule) []uint64 {
	set := map[uint64]bool{0: true, 1: true, low32: true, all64: true}
	add := func(v uint64) {
		for _, w := range []uint64{v, v - 1, v + 1, v | 0xdead<<32, v | 1<<63, v | 0x80000000, ^v} {
			set[w] = true
		}
	}
	for _, r := range rules {
		for _, c := range r.When {
			add(c.Mask)
			for _, v := range c.Values {
				add(v)
			}
		}
	}
	for i := range 64 {
		set[1<<i] = true
	}
	out := make([]uint64, 0, len(set))
	for v := range set {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

// wanted returns the answers the table allows for a call: one of the errnos of
// the rules that match, or ALLOW if none does.
func wanted(rules []Rule, name string, args [6]uint64) []uint32 {
	var out []uint32
	for _, r := range rules {
		if slices.Contains(r.Calls, name) && r.Matches(args) {
			out = append(out, unix.SECCOMP_RET_ERRNO|uint32(r.Errno))
		}
	}
	if out == nil {
		out = []uint32{unix.SECCOMP_RET_ALLOW}
	}
	return out
}

func TestFilterMeansTheTable(t *testing.T) {
	for arch, tgt := range targets {
		for name, o := range map[string]Options{"default": Default(), "coding": Coding(), "strict": Strict()} {
			t.Run(arch+"/"+name, func(t *testing.T) {
				prog, err := compile(o, tgt)
				if err != nil {
					t.Fatal(err)
				}
				checkAll(t, prog, Rules(o), tgt)
			})
		}
	}
}

func checkAll(t *testing.T, prog []byte, rules []Rule, tgt target) {
	pool := interesting(rules)
	rnd := rand.New(rand.NewPCG(1, 2))
	l := findLimits(tgt)
	for nr := range uint32(600) {
		name, err := lib.ScmpSyscall(nr).GetNameByArch(tgt.arch)
		conditional := slices.ContainsFunc(rules, func(r Rule) bool { return slices.Contains(r.Calls, name) && len(r.When) > 0 })
		rounds := 20
		if conditional {
			rounds = 3000
		}
		for range rounds {
			var args [6]uint64
			for i := range args {
				args[i] = pool[rnd.IntN(len(pool))]
				if rnd.IntN(4) == 0 {
					args[i] = uint64(rnd.IntN(300))
				}
			}
			want := []uint32{retENOSYS}
			if err == nil && nr <= l.max && hidden[name] == "" {
				want = wanted(rules, name, args)
			} else if slices.Contains(tgt.skip, nr) {
				want = []uint32{unix.SECCOMP_RET_ALLOW}
			}
			if got := run(t, prog, nr, tgt.audit, args); !slices.Contains(want, got) {
				t.Fatalf("%s(%d) %#x: filter answers %#x, table says %#x", name, nr, args, got, want)
			}
		}
	}
}

func TestPrologueRefusesForeignNumbers(t *testing.T) {
	prog, err := compile(Coding(), targets["amd64"])
	if err != nil {
		t.Fatal(err)
	}
	audit := targets["amd64"].audit
	for _, c := range []struct {
		name     string
		nr, arch uint32
		want     uint32
	}{
		{"getpid", 39, audit, unix.SECCOMP_RET_ALLOW},
		{"getpid in the i386 table", 20, unix.AUDIT_ARCH_I386, retKill},
		{"same number, no architecture", 39, 0, retKill},
		{"arm64", 172, unix.AUDIT_ARCH_AARCH64, retKill},
		{"x32 getpid", 39 | x32Bit, audit, retENOSYS},
		{"x32 ptrace", 521 | x32Bit, audit, retENOSYS},
		{"first number after the last reviewed", reviewed + 1, audit, retENOSYS},
		{"the highest number below x32", x32Bit - 1, audit, retENOSYS},
		{"minus one", 0xffffffff, audit, retENOSYS},
		{"clone3", unix.SYS_CLONE3, audit, retENOSYS},
		{"openat2", unix.SYS_OPENAT2, audit, retENOSYS},
		{"a hole in the table", 400, audit, retENOSYS},
	} {
		if got := run(t, prog, c.nr, c.arch, [6]uint64{}); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

// TestMustBlockList is the list itself, written down a second time: a row that
// somebody drops from the table fails here.
func TestMustBlockList(t *testing.T) {
	must := strings.Fields(`io_uring_setup io_uring_enter io_uring_register userfaultfd bpf perf_event_open ptrace
		process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp lookup_dcookie keyctl add_key request_key
		mount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree open_tree_attr mount_setattr
		setns kexec_load kexec_file_load init_module finit_module delete_module syslog acct quotactl quotactl_fd swapon
		swapoff reboot clock_settime clock_adjtime adjtimex settimeofday sethostname setdomainname iopl ioperm modify_ldt
		fanotify_init vhangup uselib _sysctl nfsservctl open_by_handle_at name_to_handle_at`)
	rules := Rules(Options{AllowUnix: true, AllowMemfd: true, AllowNestedFilters: true})
	for _, name := range must {
		if !slices.ContainsFunc(rules, func(r Rule) bool {
			return len(r.When) == 0 && r.Errno == syscall.EPERM && slices.Contains(r.Calls, name)
		}) {
			t.Errorf("%s is not refused unconditionally", name)
		}
	}
}

func TestUnknownNameFailsClosed(t *testing.T) {
	tgt := targets["amd64"]
	l := findLimits(tgt)
	for _, r := range []Rule{
		{"x", []string{"no_such_call"}, nil, syscall.EPERM, ""},
		{"x", []string{"ioctl"}, []Cond{{Arg: 1}}, syscall.EPERM, ""},
	} {
		if _, err := compileTable([]Rule{r}, tgt, l); err == nil {
			t.Errorf("%v compiled", r)
		}
	}
}

func TestTextHasEveryRule(t *testing.T) {
	text := Text(Strict())
	for _, r := range Rules(Strict()) {
		for _, call := range r.Calls {
			want := fmt.Sprintf("%s ", call)
			if !strings.Contains(text, want) || !strings.Contains(text, unix.ErrnoName(r.Errno)) {
				t.Errorf("listing lacks %s", call)
			}
		}
	}
	if strings.Contains(text, "invalid") {
		t.Error("listing has an invalid condition")
	}
}

func FuzzFilterMeansTheTable(f *testing.F) {
	o := Coding()
	prog, err := compile(o, targets["amd64"])
	if err != nil {
		f.Fatal(err)
	}
	rules := Rules(o)
	f.Add(uint32(unix.SYS_SOCKET), uint64(17), uint64(3), uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, nr uint32, a, b, c, d uint64) {
		name, err := lib.ScmpSyscall(nr).GetNameByArch(lib.ArchAMD64)
		args := [6]uint64{a, b, c, d}
		got := run(t, prog, nr, targets["amd64"].audit, args)
		if err != nil || nr >= x32Bit || nr > reviewed || hidden[name] != "" {
			if got != retENOSYS && nr != uretprobe {
				t.Fatalf("nr %d: %#x", nr, got)
			}
			return
		}
		if want := wanted(rules, name, args); !slices.Contains(want, got) {
			t.Fatalf("%s %#x: %#x, want %#x", name, args, got, want)
		}
	})
}
