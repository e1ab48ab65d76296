// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Probe is one harmless act that a layer must refuse and that would go another
// way without that layer, whatever else is in place. Init tries each of them
// behind its walls, before any agent exists, and tells the keeper what the
// kernel answered; the keeper judges.
type Probe uint8

const (
	_            Probe = iota
	ProbeConnect       // a UDP connect to ProbeAddr, which sends nothing; without the network programs it succeeds
	ProbeOpen          // open ProbeFile for reading; without Landlock it succeeds, as init sees before it has entered its domain
	ProbeCall          // setns(-1, 0); without the system call filter it is EBADF
)

// ProbeAddr is a virtual address that no name is ever given (they are given out
// from the other end, 4,096 at most) and that address rules do not reach.
var ProbeAddr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 19, 255, 254}), 9)

// ProbeFile is a world-readable empty file of the view that no Landlock rule
// grants.
const ProbeFile = GuardDir + "/.probe"

// probeInfo is what must come of a probe, and what it says if it does not.
type probeInfo struct {
	probe  Probe
	layer  string
	act    string
	want   []unix.Errno
	remedy string
}

// probes is the table of all of them, in the order in which they are tried.
var probes = [...]probeInfo{
	{ProbeConnect, "network programs", "a connect to an address that no policy opens", []unix.Errno{unix.EACCES, unix.EPERM}, // EPERM before bpf_set_retval, Linux 5.18
		"`ringfence doctor` says which hooks this kernel has; look for other programs on the cgroup with `bpftool cgroup tree`"},
	{ProbeOpen, "Landlock", "opening a file that no rule grants", []unix.Errno{unix.EACCES},
		"`ringfence doctor` says what Landlock this kernel has; it must stand in the list of lsm="},
	{ProbeCall, "system call filter", "joining another namespace", []unix.Errno{unix.EPERM},
		"the filter of this profile does not refuse setns(2), which every filter of this version does: reinstall the programs, they must be of one version"},
}

// Probes lists all probes in the order in which they are tried.
func Probes() []Probe {
	out := make([]Probe, len(probes))
	for i, p := range probes {
		out[i] = p.probe
	}
	return out
}

func (p Probe) info() probeInfo {
	for _, i := range probes {
		if i.probe == p {
			return i
		}
	}
	return probeInfo{layer: fmt.Sprintf("probe %d", uint8(p))} // nothing is right about it
}

// Layer names what the probe is to be refused by.
func (p Probe) Layer() string { return p.info().layer }

// Act says in words what the probe tries.
func (p Probe) Act() string { return p.info().act }

// Remedy says what to do when the layer does not refuse it.
func (p Probe) Remedy() string { return p.info().remedy }

// ProbeResult is what the kernel answered to one probe: 0 means that it let it
// through.
type ProbeResult struct {
	Probe Probe
	Errno unix.Errno
}

// Denied says that the answer is the one that only the probed layer gives.
func (r ProbeResult) Denied() bool { return slices.Contains(r.Probe.info().want, r.Errno) }

const probeResultSize = 5

// AppendProbes appends the wire form of results: a byte and a little-endian
// errno each. It is the payload of Ready.
func AppendProbes(b []byte, results []ProbeResult) []byte {
	for _, r := range results {
		b = append(b, byte(r.Probe))
		b = binary.LittleEndian.AppendUint32(b, uint32(r.Errno))
	}
	return b
}

// DecodeProbes reads what AppendProbes wrote. Anything but one result of each
// probe, in order, is an error: a probe that was left out proves nothing.
func DecodeProbes(b []byte) ([]ProbeResult, error) {
	if len(b) != len(probes)*probeResultSize {
		return nil, fmt.Errorf("%w: %d bytes of probe results, not %d: init is of another version", ErrFrame, len(b), len(probes)*probeResultSize)
	}
	out := make([]ProbeResult, len(probes))
	for i, p := range probes {
		one := b[i*probeResultSize:]
		out[i] = ProbeResult{Probe(one[0]), unix.Errno(binary.LittleEndian.Uint32(one[1:]))}
		if out[i].Probe != p.probe {
			return nil, fmt.Errorf("%w: result %d is of probe %d, not %d", ErrFrame, i, out[i].Probe, p.probe)
		}
	}
	return out, nil
}
