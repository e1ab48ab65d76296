// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/bpf"
)

// loader turns the embedded objects into programs over one set of maps.
type loader struct {
	fence, process, refusal, guard *ebpf.CollectionSpec
	digest                         string // of the code, of what the kernel made us switch on and of where we are
	mapDir                         string // "" means nothing is pinned
	shared                         map[string]*ebpf.Map
	kernelTypes                    *btf.Spec     // parsed once, when the first program is loaded
	log                            ebpf.LogLevel // what the verifier is to say of programs that load; none outside tests
}

// newLoader fits the embedded objects to the kernel and to the options. With
// mapDir set, maps pinned there are used, others are pinned there.
func newLoader(o Options, mapDir string) (*loader, error) {
	// Fails without CAP_SYS_RESOURCE, and is not needed since 5.11, where map
	// memory is accounted to the cgroup. Loading tells if it was.
	_ = rlimit.RemoveMemlock()

	l := &loader{mapDir: mapDir, shared: make(map[string]*ebpf.Map)}
	var err error
	if l.fence, err = bpf.LoadFence(); err != nil {
		return nil, err
	}
	if l.process, err = bpf.LoadProcess(); err != nil {
		return nil, err
	}
	if l.refusal, err = bpf.LoadRefusal(); err != nil {
		return nil, err
	}
	if l.guard, err = bpf.LoadGuard(); err != nil {
		return nil, err
	}
	retval := []byte{0}
	if haveRetval() {
		retval[0] = 1
	}
	if err := l.fence.Variables[bpf.FenceVarRfHaveRetval].Set(retval[0]); err != nil {
		return nil, err
	}
	home, err := netnsCookie()
	if err != nil {
		return nil, err
	}
	if err := l.fence.Variables[bpf.FenceVarRfHome].Set(home); err != nil {
		return nil, err
	}
	l.digest = digestOf(bpf.Digest(), retval, binary.NativeEndian.AppendUint64(nil, home))
	for name, size := range map[string]uint32{
		bpf.FenceMapNames: o.MaxNames, bpf.FenceMapCidrs: o.MaxCIDRs,
		bpf.FenceMapDenials: o.DenialRing, bpf.FenceMapFlows: o.FlowRing, bpf.FenceMapRefusals: o.RefusalRing, bpf.FenceMapProcesses: o.ProcessRing,
	} {
		if size != 0 {
			l.fence.Maps[name].MaxEntries = size
		}
	}
	return l, nil
}

// netnsCookie names the network namespace of the calling thread. It is never 0.
func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("own network namespace: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("own network namespace: SO_NETNS_COOKIE (Linux 5.14): %w", err)
	}
	return cookie, nil
}

// loadMaps creates or takes over every map.
func (l *loader) loadMaps(out *bpf.FenceMaps) error {
	for name, dst := range map[string]**ebpf.Map{
		bpf.FenceMapState: &out.State, bpf.FenceMapNames: &out.Names, bpf.FenceMapCidrs: &out.Cidrs,
		bpf.FenceMapMembers: &out.Members, bpf.FenceMapRates: &out.Rates, bpf.FenceMapDenials: &out.Denials,
		bpf.FenceMapFlows: &out.Flows, bpf.FenceMapOutcomes: &out.Outcomes, bpf.FenceMapVerdicts: &out.Verdicts,
		bpf.FenceMapRefusals: &out.Refusals, bpf.FenceMapCalls: &out.Calls, bpf.FenceMapWatch: &out.Watch, bpf.FenceMapReported: &out.Reported,
		bpf.FenceMapProcesses: &out.Processes, bpf.FenceMapPrograms: &out.Programs, bpf.FenceMapScratch: &out.Scratch, bpf.FenceMapReads: &out.Reads,
		bpf.FenceMapGuards: &out.Guards, bpf.FenceMapEntries: &out.Entries, bpf.FenceMapHits: &out.Hits,
	} {
		m, err := l.openMap(l.fence, name)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		*dst, l.shared[name] = m, m
	}
	return nil
}

func (l *loader) openMap(from *ebpf.CollectionSpec, name string) (*ebpf.Map, error) {
	spec := from.Maps[name]
	if l.mapDir == "" {
		return ebpf.NewMap(spec)
	}
	pin := filepath.Join(l.mapDir, name)
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err == nil {
		spec.MaxEntries = m.MaxEntries() // options do not resize a living map
		if err := spec.Compatible(m); err != nil {
			m.Close()
			return nil, fmt.Errorf("pinned by another version of this layout: %w", err)
		}
		return m, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, err
	}
	if err := m.Pin(pin); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// program returns the program pinned as dir/pin, or loads and pins it. With
// dir empty it only loads. Each is loaded alone, so that an error names it.
func (l *loader) program(dir, pin string, from *ebpf.CollectionSpec, name string) (*ebpf.Program, error) {
	path := filepath.Join(dir, pin)
	if dir != "" {
		p, err := ebpf.LoadPinnedProgram(path, nil)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	spec := from.Copy()
	spec.Programs = map[string]*ebpf.ProgramSpec{name: spec.Programs[name]}
	replace := make(map[string]*ebpf.Map)
	for mapName, m := range l.shared {
		if s := spec.Maps[mapName]; s != nil {
			s.MaxEntries = m.MaxEntries()
			replace[mapName] = m
		}
	}
	if l.kernelTypes == nil {
		var err error
		if l.kernelTypes, err = btf.LoadKernelSpec(); err != nil {
			return nil, err
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Programs:        ebpf.ProgramOptions{KernelTypes: l.kernelTypes, LogLevel: l.log},
		MapReplacements: replace,
	})
	if err != nil {
		return nil, clarify(err, from.Programs[name].AttachType)
	}
	defer coll.Close()
	p := coll.DetachProgram(name)
	if dir != "" {
		if err := p.Pin(path); err != nil {
			p.Close()
			return nil, err
		}
	}
	return p, nil
}

// clarify turns the EINVAL of a kernel that does not know an attach type into
// ErrNotSupported, by asking with the smallest program of that kind.
func clarify(err error, attach ebpf.AttachType) error {
	if attach != ebpf.AttachCgroupUnixConnect && attach != ebpf.AttachCgroupUnixSendmsg {
		return err
	}
	p, perr := loadSmallest(ebpf.CGroupSockAddr, attach, nil)
	if perr == nil {
		p.Close()
		return err
	}
	return fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
}

// haveRetval reports whether socket hooks may choose the errno. The helper is
// of 5.18; the hooks got it at different times, so try both kinds we use.
func haveRetval() bool {
	set := asm.Instructions{
		asm.Mov.Imm(asm.R1, -13),
		asm.FnSetRetval.Call(),
	}
	for _, k := range []struct {
		typ    ebpf.ProgramType
		attach ebpf.AttachType
	}{
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect},
		{ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg},
		{ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate},
	} {
		p, err := loadSmallest(k.typ, k.attach, set)
		if err != nil {
			return false
		}
		p.Close()
	}
	return true
}

// loadSmallest loads pre, then "return 0".
func loadSmallest(typ ebpf.ProgramType, attach ebpf.AttachType, pre asm.Instructions) (*ebpf.Program, error) {
	insns := append(append(asm.Instructions{}, pre...), asm.Mov.Imm(asm.R0, 0), asm.Return())
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: typ, AttachType: attach, Instructions: insns, License: "Dual BSD/GPL",
	})
}
