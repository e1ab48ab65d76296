// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

// machine is one guest.
type machine struct {
	kernel, initrd string
	disks          []string // written to copies that are gone afterwards
	processor      string
	console        string // file for what the kernel says
	accel          string
	limit          time.Duration
}

// commandLine of a guest: the modules that Debian has, and bpf. To systemd each
// start is a first one, and it would ask questions.
const commandLine = "console=ttyS0 quiet panic=-1 oops=panic lsm=landlock,lockdown,yama,integrity,apparmor,bpf systemd.firstboot=off"

// boot runs the guest to its end and hands over each message. It needs neither
// root nor /dev/kvm nor a network.
func (m *machine) boot(ctx context.Context, tell func(plan.Message)) error {
	ctx, cancel := context.WithTimeout(ctx, m.limit)
	defer cancel()
	args := []string{
		"-accel", m.accel, "-cpu", m.processor, "-smp", "2", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot", "-nic", "none",
		"-kernel", m.kernel, "-initrd", m.initrd, "-append", commandLine,
		"-serial", "file:" + m.console, "-serial", "stdio",
	}
	for _, d := range m.disks {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot=on,file="+d)
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done, readErr := listen(out, tell)
	waitErr := cmd.Wait()
	switch {
	case done && readErr == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the guest did not come to its end in %v: %w", m.limit, context.Cause(ctx))
	}
	console, _ := os.ReadFile(m.console)
	why := errors.Join(readErr, waitErr)
	if why == nil {
		why = errors.New("power off before the end of its plan")
	}
	return fmt.Errorf("the guest ended early: %w\n%s\nconsole:\n%s", why, said.String(), tail(string(console), 60))
}

// listen hands over the messages of a guest; done says that it came to the end
// of its plan.
func listen(r io.Reader, tell func(plan.Message)) (done bool, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return done, nil
		} else if err != nil {
			return done, err
		}
		var m plan.Message
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return done, fmt.Errorf("the guest says %q: %w", line, err)
		}
		switch m.Kind {
		case plan.Done:
			done = true
		case plan.Fail:
			return done, fmt.Errorf("the guest says: %s", m.Text)
		default:
			tell(m)
		}
	}
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
