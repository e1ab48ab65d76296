// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// programs are what tests run in the guest besides what is built here.
var programs = []string{
	"base-files", "base-passwd", "bash", "ca-certificates", "coreutils", "curl", "dash", "findutils", "git", "grep", "hostname",
	"iproute2", "kmod", "libc-bin", "mawk", "netbase", "procps", "python3", "sed", "util-linux",
}

// recipe is part of what a cached image is known by: count it up when the code
// makes another image of the same packages.
const recipe = "3"

// rootBytes is the size of the guest's root file system; the file is sparse.
const rootBytes = "3G"

// withSystemd is what a guest has besides, whose first program is systemd.
var withSystemd = []string{"systemd"}

// rootImage makes, or finds in the cache by its name and the packages, the ext4
// file system that a guest has as its root.
func (c *cache) rootImage(ctx context.Context, name string, debs []string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, recipe, rootBytes)
	for _, d := range debs {
		fmt.Fprintln(sum, filepath.Base(d))
	}
	image := c.path(fmt.Sprintf("%s-%x.ext4", name, sum.Sum(nil)[:8]))
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	dir, err := os.MkdirTemp(c.dir, "root")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if err := unpackRoot(ctx, dir, debs); err != nil {
		return "", err
	}
	c.forget(name + "-*.ext4")
	return image, makeImage(ctx, image, dir, rootBytes)
}

// unpackRoot does what installing would: packages' own scripts do not run.
func unpackRoot(ctx context.Context, dir string, debs []string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr", d), 0o755), os.Symlink("usr/"+d, filepath.Join(dir, d)))
		if err != nil {
			return err
		}
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, dir); err != nil {
			return err
		}
	}
	return errors.Join(places(dir), accounts(dir), authorities(dir), putFiles(dir, map[string]content{
		"etc/hostname":      {0o644, []byte("guest\n")},
		"etc/hosts":         {0o644, []byte("127.0.0.1 localhost guest\n::1 localhost\n")},
		"etc/resolv.conf":   {0o644, []byte("nameserver 127.0.0.1\n")},
		"etc/nsswitch.conf": {0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n")},
	}))
}

// places makes the directories and links that no package brings as they are.
func places(dir string) error {
	for _, d := range []string{"var/run", "var/lock"} { // packages bring directories
		err := errors.Join(os.RemoveAll(filepath.Join(dir, d)), os.Symlink(strings.Replace(d, "var", "/run", 1), filepath.Join(dir, d)))
		if err != nil {
			return err
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "root", "src", "var/tmp", "usr/lib/modules"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(os.Symlink("mawk", filepath.Join(dir, "usr/bin/awk")), os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky),
		os.Chmod(filepath.Join(dir, "var/tmp"), 0o777|os.ModeSticky))
}

// accounts are those of package base-passwd, none of which has a password.
func accounts(dir string) error {
	passwd, err := os.ReadFile(filepath.Join(dir, "usr/share/base-passwd/passwd.master"))
	if err != nil {
		return err
	}
	group, err := os.ReadFile(filepath.Join(dir, "usr/share/base-passwd/group.master"))
	if err != nil {
		return err
	}
	shadow := ""
	for line := range strings.Lines(string(passwd)) {
		name, _, _ := strings.Cut(line, ":")
		shadow += name + ":*:19700:0:99999:7:::\n"
	}
	return putFiles(dir, map[string]content{"etc/passwd": {0o644, passwd}, "etc/group": {0o644, group}, "etc/shadow": {0o640, []byte(shadow)}})
}

// authorities makes the bundle of certificates that update-ca-certificates would.
func authorities(dir string) error {
	certs, err := filepath.Glob(filepath.Join(dir, "usr/share/ca-certificates/mozilla/*.crt"))
	if err != nil {
		return err
	}
	var bundle []byte
	for _, f := range certs {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		bundle = append(bundle, b...)
	}
	return putFiles(dir, map[string]content{"etc/ssl/certs/ca-certificates.crt": {0o644, bundle}})
}

// content is a file that is written into an image.
type content struct {
	mode  os.FileMode
	bytes []byte
}

func putFiles(dir string, files map[string]content) error {
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, f.bytes, f.mode)); err != nil {
			return err
		}
	}
	return nil
}

// unpack extracts a package's files. Unlike dpkg-deb -x it lets /lib be the
// link that it is on a system of today.
func unpack(ctx context.Context, deb, dir string) error {
	list := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	extract := exec.CommandContext(ctx, "tar", "-x", "-p", "--keep-directory-symlink", "-C", dir)
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	var said bytes.Buffer
	list.Stdout, list.Stderr, extract.Stdin, extract.Stderr = w, &said, r, &said
	err = list.Start()
	w.Close()
	if err == nil {
		err = errors.Join(extract.Run(), list.Wait())
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w\n%s", filepath.Base(deb), err, said.Bytes())
	}
	return nil
}

// makeImage makes an ext4 file system with what is in dir. All of it belongs to
// root: to whoever is not, mke2fs runs in a user namespace.
func makeImage(ctx context.Context, image, dir, size string) error {
	tmp := image + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", dir, tmp, size)
	if os.Geteuid() != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs %s: %w\n%s", filepath.Base(image), err, out)
	}
	return os.Rename(tmp, image)
}

// kernelFiles are one kernel, unpacked.
type kernelFiles struct {
	release string // as uname says
	vmlinuz string
	tree    string // below it is lib/modules/RELEASE with modules.dep
	modules string // ext4 image of tree/lib/modules
}

// kernel unpacks a kernel's packages, or finds them in the cache by the first.
func (c *cache) kernel(ctx context.Context, debs []string) (*kernelFiles, error) {
	name := strings.TrimSuffix(filepath.Base(debs[0]), ".deb")
	dir := c.path("kernel-" + name)
	if _, err := os.Stat(dir); err != nil {
		tmp, err := os.MkdirTemp(c.dir, "kernel")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		if err := unpackKernel(ctx, debs, tmp); err != nil {
			return nil, err
		}
		if err := os.Rename(tmp, dir); err != nil {
			return nil, err
		}
	}
	release, err := onlyRelease(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &kernelFiles{
		release: release, vmlinuz: filepath.Join(dir, "lib/modules", release, "vmlinuz"), tree: dir, modules: filepath.Join(dir, "modules.ext4"),
	}, nil
}

// onlyRelease is the name of the one directory of modules.
func onlyRelease(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "lib/modules/*"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("not one directory of modules: %v %v", found, err)
	}
	return filepath.Base(found[0]), nil
}

// unpackKernel lays a kernel out as Debian does since 7.3 and Fedora always
// did: vmlinuz and config beside the modules, which are below /usr.
func unpackKernel(ctx context.Context, debs []string, dir string) error {
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755), os.Symlink("usr/lib", filepath.Join(dir, "lib")))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := unpack(ctx, deb, dir); err != nil {
			return err
		}
	}
	release, err := onlyRelease(dir)
	if err != nil {
		return fmt.Errorf("%s and its parts: %w", filepath.Base(debs[0]), err)
	}
	for _, name := range []string{"vmlinuz", "config"} {
		err := os.Rename(filepath.Join(dir, "boot", name+"-"+release), filepath.Join(dir, "lib/modules", release, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "depmod", "-b", dir, release)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w\n%s", err, out)
	}
	return makeImage(ctx, filepath.Join(dir, "modules.ext4"), filepath.Join(dir, "lib/modules"), "512M")
}

// bootModules are what the guest needs to see its disks.
var bootModules = []string{"virtio_pci", "virtio_blk", "ext4"}

// load returns the modules to insert for bootModules, in order, as paths below
// the tree. What is built in is not among them.
func (k *kernelFiles) load() ([]string, error) {
	base := filepath.Join(k.tree, "lib/modules", k.release)
	raw, err := os.ReadFile(filepath.Join(base, "modules.dep"))
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{} // file -> what it needs, the first first
	file := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		f, needs, _ := strings.Cut(line, ":")
		list := strings.Fields(needs)
		slices.Reverse(list)
		deps[f] = list
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		file[strings.ReplaceAll(name, "-", "_")] = f
	}
	var out []string
	for _, m := range bootModules {
		f, ok := file[m]
		if !ok {
			continue
		}
		for _, d := range append(slices.Clone(deps[f]), f) {
			if path := filepath.Join(base, d); !slices.Contains(out, path) {
				out = append(out, path)
			}
		}
	}
	return out, nil
}

// initrd is the initial file system: the guest's first program, what it is to
// do, and the modules of its disks.
func (k *kernelFiles) initrd(ctx context.Context, path string, guest, plan []byte) error {
	modules, err := k.load()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	out := newCPIO(&b)
	out.file("init", 0o755, guest)
	out.file("plan.json", 0o644, plan)
	for i, m := range modules {
		code, err := os.ReadFile(m)
		if err != nil {
			return err
		}
		if strings.HasSuffix(m, ".xz") {
			if code, err = exec.CommandContext(ctx, "xz", "-dc", m).Output(); err != nil {
				return fmt.Errorf("%s: %w", m, err)
			}
		}
		out.file(fmt.Sprintf("modules/%02d.ko", i), 0o644, code)
	}
	for _, d := range []string{"dev/x", "proc/x", "root/x"} { // parents alone are wanted
		out.parents(d)
	}
	if err := out.close(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
