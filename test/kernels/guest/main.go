// SPDX-License-Identifier: Apache-2.0

// Command guest is the first program of a kernel under test: it loads the
// modules of its disks, mounts what a Debian system has, runs the jobs of
// /plan.json one after the other, tells of them on the second serial line and
// powers the machine off. See test/kernels.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringfence/ringfence/test/kernels/plan"
)

const (
	runner = "run-the-plan" // argument of the second process
	line   = "/dev/ttyS1"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == runner {
		run()
		return
	}
	if err := first(); err != nil {
		fmt.Println("guest:", err)
		if t, e := openTeller(); e == nil {
			t.say(plan.Message{Kind: plan.Fail, Text: err.Error()})
		}
	}
	powerOff()
}

func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("guest: power off:", err)
	}
	select {}
}

// first is what process 1 does: everything that has to be there, then to be
// the parent of orphans while the second process runs the plan.
func first() error {
	if err := mounts([]mount{
		{"proc", "/proc", "proc", 0, ""},
		{"dev", "/dev", "devtmpfs", 0, "mode=755"},
	}); err != nil {
		return err
	}
	raw, err := os.ReadFile("/plan.json")
	if err != nil {
		return err
	}
	if err := modules(); err != nil {
		return err
	}
	if err := disks(); err != nil {
		return err
	}
	if err := mounts(system); err != nil {
		return err
	}
	if err := os.WriteFile("/run/plan.json", raw, 0o600); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", runner)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if p.Systemd { // in the place of this one; the second process powers off
		return unix.Exec("/usr/lib/systemd/systemd", []string{"systemd", "--unit=multi-user.target"}, os.Environ())
	}
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case pid == cmd.Process.Pid && st.ExitStatus() != 0:
			return fmt.Errorf("the plan's process ended with %v", st)
		case pid == cmd.Process.Pid:
			return nil
		}
	}
}

func modules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	sort.Strings(files)
	for _, f := range files {
		fd, err := os.Open(f)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(fd.Fd()), "", 0)
		fd.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", f, err)
		}
	}
	return nil
}

// disks mounts the root, the modules of this kernel and what is tested, and
// makes that root the one of this process.
func disks() error {
	for range 1000 { // the disks appear when their driver has found them
		if _, err := os.Stat("/dev/vdc"); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := mounts([]mount{
		{"/dev/vda", "/root", "ext4", unix.MS_NOATIME, ""},
		{"/dev/vdb", "/root/usr/lib/modules", "ext4", unix.MS_RDONLY, ""},
		{"/dev/vdc", "/root/src", "ext4", unix.MS_RDONLY, ""},
	}); err != nil {
		return err
	}
	for _, d := range []string{"/proc", "/dev"} {
		if err := unix.Mount(d, "/root"+d, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", d, err)
		}
	}
	return errors.Join(os.Chdir("/root"), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/"))
}

type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
}

// system is what an init system mounts, besides /proc and /dev.
var system = []mount{
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"securityfs", "/sys/kernel/security", "securityfs", 0, ""},
	{"tracefs", "/sys/kernel/tracing", "tracefs", 0, ""},
	{"bpf", "/sys/fs/bpf", "bpf", 0, "mode=700"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "nsdelegate"},
	{"devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=000"},
	{"shm", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", 0, ""},
	{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
}

func mounts(list []mount) error {
	for _, m := range list {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
		}
	}
	return nil
}

// settle is the rest of a system's start.
func settle() error {
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, "/dev/"+name); err != nil && !os.IsExist(err) {
			return err
		}
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return err
	}
	// Mounts of the root are shared, as an init system makes them.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, out)
	}
	return nil
}

// teller writes messages to the host.
type teller struct{ out *json.Encoder }

// openTeller makes the serial line carry bytes as they are.
func openTeller() (*teller, error) {
	f, err := os.OpenFile(line, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, err
	}
	return &teller{json.NewEncoder(f)}, nil
}

func (t *teller) say(m plan.Message) {
	if err := t.out.Encode(m); err != nil {
		fmt.Println("guest: tell:", err)
	}
}
