// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// Need says what is lost without a feature.
type Need string

const (
	NeedRequired Need = "required" // no sandbox without it
	NeedOptional Need = "optional" // one lock of two, or a legible errno
)

// Feature is one thing the kernel has or lacks, found out by doing it.
type Feature struct {
	Name   string // stable: "connect4", "cgroup2", ...
	Have   bool
	Kernel string // first kernel with it
	Need   Need
	Detail string // what it is for, or the error when missing
	Remedy string // what to do when missing; empty when present
}

const (
	remedyKernel = "boot a kernel of at least %s"
	remedyRoot   = "run as root with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN; see also the lockdown state in /sys/kernel/security/lockdown"
)

// prober collects features. What it makes it also removes.
type prober struct {
	out []Feature
	cg  *cgroupDir
	l   *loader
}

// Probe really loads each program and attaches it to a cgroup made for that,
// and returns what worked in the order a person would fix it. It needs root,
// changes nothing that stays and does not need an open Fence.
func Probe() []Feature {
	p := &prober{}
	root, ok := p.cgroup2()
	p.bpffs()
	p.btf()
	if !ok {
		return p.out
	}
	path := filepath.Join(root, fmt.Sprintf("ringfence-probe-%d", os.Getpid()))
	if err := os.Mkdir(path, 0o755); err != nil {
		p.add("cgroup-create", "4.5", NeedRequired, "make a cgroup", err, "run as root on the host, with the cgroup2 file system mounted read-write")
		return p.out
	}
	defer os.Remove(path)
	cg, err := openCgroup(path)
	if err != nil {
		p.add("cgroup-create", "4.5", NeedRequired, "make a cgroup", err, remedyRoot)
		return p.out
	}
	defer cg.close()
	p.cg = cg
	p.programs()
	p.retval()
	p.sockDestroy()
	return p.out
}

// Missing returns the required features that are not there.
func Missing(features []Feature) []Feature {
	var out []Feature
	for _, f := range features {
		if !f.Have && f.Need == NeedRequired {
			out = append(out, f)
		}
	}
	return out
}

func (p *prober) add(name, kernel string, need Need, what string, err error, remedy string) {
	f := Feature{Name: name, Have: err == nil, Kernel: kernel, Need: need, Detail: what}
	if err != nil {
		f.Detail = what + ": " + plain(err)
		f.Remedy = remedy
	}
	p.out = append(p.out, f)
}

// plain strips the hint about MEMLOCK that the library appends to any EPERM:
// since 5.11 memory is accounted otherwise and the hint misleads.
func plain(err error) string {
	s := err.Error()
	if i := strings.Index(s, " (MEMLOCK may be too low"); i >= 0 {
		s = s[:i]
	}
	return s
}

func (p *prober) cgroup2() (string, bool) {
	root, err := CgroupRoot()
	p.add("cgroup2", "4.5", NeedRequired, "sandboxes are cgroups", err, "mount -t cgroup2 none /sys/fs/cgroup, or boot with systemd.unified_cgroup_hierarchy=1")
	return root, err == nil
}

func (p *prober) bpffs() {
	dir, err := os.MkdirTemp("", "ringfence-probe-")
	if err == nil {
		defer os.Remove(dir)
		if err = ensureBPFFS(dir); err == nil {
			err = releaseBPFFS(dir)
		}
	}
	p.add("bpffs", "4.4", NeedRequired, "pins keep denials while the keeper is away", err, "run as root with CAP_SYS_ADMIN, in a mount namespace where mounting is allowed")
}

func (p *prober) btf() {
	_, err := btf.LoadKernelSpec()
	p.add("btf", "5.4", NeedRequired, "finds kernel structures (/sys/kernel/btf/vmlinux)", err, "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian, Ubuntu, Fedora and RHEL ship it")
}

func (p *prober) programs() {
	l, err := newLoader(Options{}, "")
	if err != nil {
		p.add("objects", "5.15", NeedRequired, "embedded programs", err, "reinstall Ringfence")
		return
	}
	var maps bpf.FenceMaps
	err = l.loadMaps(&maps)
	defer func() {
		for _, m := range l.shared {
			m.Close()
		}
	}()
	p.add("maps", "5.9", NeedRequired, "ring buffers, shared cgroup storage, LPM tries", err, explain(err, "5.9"))
	if err != nil {
		return
	}
	p.l = l
	for _, h := range hooks {
		need := NeedRequired
		if h.optional {
			need = NeedOptional
		}
		err := p.hook(h)
		p.add(h.name, h.kernel, need, "verdict hook", err, explain(err, h.kernel))
	}
	for _, t := range tracepoints {
		err := p.tracepoint(p.l.process, t.name, t.prog, t.point)
		p.add(t.name, "4.17", NeedRequired, "process records", err, explain(err, "4.17"))
	}
	err = p.tracepoint(p.l.refusal, "refused", bpf.RefusalProgRfRefused, "sys_exit")
	p.add("refused", "4.17", NeedOptional, "records of refused system calls (audit.syscalls)", err, "boot a kernel built with CONFIG_FTRACE_SYSCALLS=y, as Debian, Ubuntu, Fedora and RHEL ship it")
	p.guard()
	err = p.skLookup()
	p.add("sk_lookup", "5.9", NeedRequired, "steers flows to the gateway", err, explain(err, "5.9"))
}

// explain picks the remedy: an unknown program type is the kernel's age, a
// refusal is a right that is missing.
func explain(err error, kernel string) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return remedyRoot
	}
	return fmt.Sprintf(remedyKernel, kernel)
}

func (p *prober) hook(h hookInfo) error {
	prog, err := p.l.program("", "", p.l.fence, h.prog)
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: p.cg.path(), Attach: h.attach, Program: prog})
	if err != nil {
		return err
	}
	defer l.Close()
	if linkCgroup(l) != p.cg.id {
		return errors.New("attached, but the kernel does not name the cgroup")
	}
	return nil
}

func (p *prober) tracepoint(from *ebpf.CollectionSpec, name, progName, point string) error {
	prog, err := p.l.program("", name, from, progName)
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: point, Program: prog})
	if err != nil {
		return err
	}
	return l.Close()
}

// guard really has a program refuse something, then loads and attaches each.
func (p *prober) guard() {
	const what = "third lock, an extra"
	lsm := tryLSM()
	missing := make(map[string]error)
	for _, h := range guardHooks {
		err := lsm
		if err == nil {
			err = p.lsm(h)
		}
		if h.kernel != "5.7" {
			missing[h.lsm] = err
		} else if lsm == nil && err != nil {
			lsm = fmt.Errorf("%s: %w", h.lsm, err)
		}
	}
	p.add("bpf_lsm", "5.7", NeedOptional, what, lsm, "boot a kernel built with CONFIG_BPF_LSM=y, with bpf in its lsm= list (see /sys/kernel/security/lsm), that lets root load such programs")
	for _, h := range guardHooks {
		if h.kernel == "5.7" {
			continue
		}
		err, remedy := missing[h.lsm], fmt.Sprintf(remedyKernel, h.kernel)
		if lsm != nil {
			err, remedy = errors.New("there is no third lock"), "as for bpf_lsm"
		}
		p.add("lsm_"+h.lsm, h.kernel, NeedOptional, "the third lock has this hook", err, remedy)
	}
}

func (p *prober) lsm(h guardInfo) error {
	prog, err := p.l.program("", "", p.l.guard, h.prog)
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return err
	}
	return l.Close()
}

// skLookup attaches steering without listeners to a namespace made for it.
func (p *prober) skLookup() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		done <- trySteer()
	}()
	return <-done
}

func trySteer() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	var objs bpf.SteerObjects
	if err := bpf.LoadSteerObjects(&objs, nil); err != nil {
		return err
	}
	defer objs.Close()
	l, err := link.AttachNetNs(int(ns.Fd()), objs.RfSteer)
	if err != nil {
		return err
	}
	return l.Close()
}

func (p *prober) retval() {
	var err error
	if !haveRetval() {
		err = ebpf.ErrNotSupported
	}
	p.add("set_retval", "6.1", NeedOptional, "a denial is EACCES and can be told from other errors; else EPERM", err, fmt.Sprintf(remedyKernel, "6.1"))
}

// sockDestroy asks to destroy a flow that does not exist: ENOENT means yes,
// EOPNOTSUPP means CONFIG_INET_DIAG_DESTROY is off.
func (p *prober) sockDestroy() {
	err := probeSockDestroy()
	p.add("sock_destroy", "4.5", NeedOptional, "running flows that a new policy denies are ended in the kernel", err, "boot a kernel built with CONFIG_INET_DIAG_DESTROY=y and CONFIG_INET_UDP_DIAG; without it the gateway alone ends such flows, and one that it does not know stalls")
}
