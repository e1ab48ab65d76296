// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"

	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// Compile returns the filter for the running architecture as an array of
// struct sock_filter (8 bytes each, little endian), ready for
// seccomp(SECCOMP_SET_MODE_FILTER). It fails on an architecture other than
// amd64 and arm64, and when a rule of the table cannot be expressed: a filter
// with a hole is never returned.
func Compile(o Options) ([]byte, error) {
	t, ok := targets[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("seccomp: no filter for architecture %s (amd64 and arm64 are supported)", runtime.GOARCH)
	}
	return compile(o, t)
}

// target is one architecture a filter can be made for.
type target struct {
	arch  lib.ScmpArch
	audit uint32 // AUDIT_ARCH_*
	x32   bool
	skip  []uint32 // nameless numbers that stay open
}

var targets = map[string]target{
	"amd64": {lib.ArchAMD64, unix.AUDIT_ARCH_X86_64, true, []uint32{uretprobe}},
	"arm64": {lib.ArchARM64, unix.AUDIT_ARCH_AARCH64, false, nil},
}

func compile(o Options, t target) ([]byte, error) {
	l := findLimits(t)
	enosys, err := hiddenNumbers(t, l)
	if err != nil {
		return nil, err
	}
	out, err := encode(nil, prologue(t.audit, t.x32, l, enosys))
	if err != nil {
		return nil, fmt.Errorf("seccomp: prologue: %w", err)
	}
	body, err := compileTable(Rules(o), t, l)
	if err != nil {
		return nil, err
	}
	out = append(out, body...)
	if n := len(out) / insnLen; n > maxProgram || len(out)%insnLen != 0 {
		return nil, fmt.Errorf("seccomp: filter has %d instructions, the kernel takes %d", n, maxProgram)
	}
	return out, nil
}

// findLimits asks libseccomp which numbers it can name.
func findLimits(t target) limits {
	var l limits
	known := make([]bool, sameAsLimit)
	for nr := range uint32(sameAsLimit) {
		if _, err := lib.ScmpSyscall(nr).GetNameByArch(t.arch); err == nil && nr <= reviewed {
			known[nr], l.max = true, nr
		}
	}
	for _, nr := range t.skip {
		known[nr] = true
	}
	for nr := uint32(0); nr <= l.max; nr++ {
		if known[nr] {
			continue
		}
		if n := len(l.unknown); n > 0 && l.unknown[n-1].hi == nr-1 {
			l.unknown[n-1].hi = nr
		} else {
			l.unknown = append(l.unknown, span{nr, nr})
		}
	}
	return l
}

// number resolves a call. ok is false when the target does not have the call
// or the prologue already closes its number.
func number(name string, t target, l limits) (nr uint32, ok bool, err error) {
	n, err := lib.GetSyscallFromNameByArch(name, t.arch)
	if err != nil {
		if at, listed := newer[name]; listed && at > l.max {
			return 0, false, nil
		}
		return 0, false, fmt.Errorf("seccomp: libseccomp does not know %q and nothing else closes it: %w", name, err)
	}
	if n < 0 || uint32(n) > l.max {
		return 0, false, nil // negative: libseccomp's mark for "not on this architecture"
	}
	return uint32(n), true, nil
}

func hiddenNumbers(t target, l limits) ([]uint32, error) {
	var out []uint32
	for name := range hidden {
		nr, ok, err := number(name, t, l)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, nr)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i] < out[j] })
	return out, nil
}

func compileTable(rules []Rule, t target, l limits) ([]byte, error) {
	f, err := lib.NewFilter(lib.ActAllow)
	if err != nil {
		return nil, fmt.Errorf("seccomp: new filter: %w", err)
	}
	defer f.Release()
	if err := setUp(f, t); err != nil {
		return nil, err
	}
	for _, r := range rules {
		for _, call := range r.Calls {
			if err := addRule(f, r, call, t, l); err != nil {
				return nil, err
			}
		}
	}
	return export(f)
}

func setUp(f *lib.ScmpFilter, t target) error {
	native, err := lib.GetNativeArch()
	if err != nil {
		return fmt.Errorf("seccomp: native architecture: %w", err)
	}
	if native != t.arch {
		if err := f.AddArch(t.arch); err != nil {
			return fmt.Errorf("seccomp: add architecture %s: %w", t.arch, err)
		}
		if err := f.RemoveArch(native); err != nil {
			return fmt.Errorf("seccomp: remove architecture %s: %w", native, err)
		}
	}
	if err := f.SetBadArchAction(lib.ActKillProcess); err != nil {
		return fmt.Errorf("seccomp: bad-architecture action: %w", err)
	}
	return nil
}

// addRule registers one call of a rule. libseccomp takes native numbers (or
// its marks for calls the native architecture lacks) and translates them.
func addRule(f *lib.ScmpFilter, r Rule, call string, t target, l limits) error {
	_, ok, err := number(call, t, l)
	if err != nil || !ok {
		return err
	}
	nr, err := lib.GetSyscallFromName(call)
	if err != nil {
		return fmt.Errorf("seccomp: %s: %w", call, err)
	}
	action := lib.ActErrno.SetReturnCode(int16(r.Errno))
	if len(r.When) == 0 {
		err = f.AddRule(nr, action)
		return wrapRule(call, r, err)
	}
	alternatives, err := expand(r.When)
	if err != nil {
		return wrapRule(call, r, err)
	}
	for _, conds := range alternatives {
		if err := f.AddRuleConditional(nr, action, conds); err != nil {
			return wrapRule(call, r, err)
		}
	}
	return nil
}

func wrapRule(call string, r Rule, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("seccomp: rule %s %v: %w", call, r.When, err)
}

func export(f *lib.ScmpFilter) ([]byte, error) {
	fd, err := unix.MemfdCreate("seccomp", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("seccomp: memfd: %w", err)
	}
	mem := os.NewFile(uintptr(fd), "seccomp")
	defer mem.Close()
	if err := f.ExportBPF(mem); err != nil {
		return nil, fmt.Errorf("seccomp: export: %w", err)
	}
	if _, err := mem.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seccomp: export: %w", err)
	}
	b, err := io.ReadAll(mem)
	if err != nil {
		return nil, fmt.Errorf("seccomp: export: %w", err)
	}
	return b, nil
}
