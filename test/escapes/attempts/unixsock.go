// SPDX-License-Identifier: Apache-2.0

package main

import (
	"golang.org/x/sys/unix"
)

func unixAttempts() []*Attempt {
	gone := errnos("ENOENT", "EACCES", "EPERM", "EAFNOSUPPORT")
	stream := func(p params, key, def string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return finish(fd, unix.Connect(fd, &unix.SockaddrUnix{Name: p.get(key, def)}))
	}
	dgram := func(p params, key, def string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte(proof), 0, &unix.SockaddrUnix{Name: p.get(key, def)})
	}
	return []*Attempt{
		{Name: "unix-stream", Class: "unix", Expect: gone, Params: []string{"unix"}, Layer: "mount",
			Control: "connects to a daemon's socket", run: func(p params) error { return stream(p, "unix", "/run/escape.sock") }},
		{Name: "unix-dgram", Class: "unix", Expect: gone, Params: []string{"unixdgram"}, Layer: "mount",
			Control: "sends to a log daemon's socket", run: func(p params) error { return dgram(p, "unixdgram", "/dev/log") }},
		{Name: "unix-dgram-pair", Class: "unix", Expect: gone, Params: []string{"unixdgram"}, Layer: "mount",
			Control: "sends to a path from one end of a pair", run: func(p params) error { return pairSend(p.get("unixdgram", "/dev/log")) }},
		{Name: "unix-docker", Class: "unix", Expect: gone, Params: []string{"docker"}, Layer: "mount",
			Control: "connects to the container daemon", run: func(p params) error { return stream(p, "docker", "/var/run/docker.sock") }},
		{Name: "unix-dotdot", Class: "unix", Expect: gone, Params: []string{"unixdotdot"}, Layer: "mount",
			Control: "connects through a path with .. and //", run: func(p params) error { return stream(p, "unixdotdot", "/run//../run/escape.sock") }},
		{Name: "unix-symlink", Class: "unix", Expect: gone, Params: []string{"unixlink"}, Layer: "mount",
			Control: "connects through a symlink", run: func(p params) error { return stream(p, "unixlink", "/run/escape-link.sock") }},
		{Name: "unix-proc-root", Class: "unix", Expect: gone, Params: []string{"unixproc"}, Layer: "mount",
			Control: "connects through /proc/PID/root", run: func(p params) error { return stream(p, "unixproc", "/proc/1/root/run/escape.sock") }},
		{Name: "unix-workspace", Class: "unix", Expect: errnos("EACCES", "EPERM", "ECONNREFUSED", "ENOENT", "EAFNOSUPPORT"), Params: []string{"unixws"}, Layer: "seccomp",
			NotIn: []string{unixOpen}, Control: "connects to a host service's socket inside the workspace",
			run: func(p params) error { return stream(p, "unixws", "host.sock") }},
		{Name: "unix-abstract", Class: "unix", Expect: errnos("ECONNREFUSED", "EPERM", "EACCES", "EAFNOSUPPORT"), Params: []string{"abstract"}, Layer: "netns",
			Control: "connects to an abstract socket", run: func(p params) error { return stream(p, "abstract", "@escape-stream") }},
		{Name: "unix-abstract-dgram", Class: "unix", Expect: errnos("ECONNREFUSED", "EPERM", "EACCES", "EAFNOSUPPORT"), Params: []string{"abstractdgram"}, Layer: "netns",
			Control: "sends to an abstract socket", run: func(p params) error { return dgram(p, "abstractdgram", "@escape-dgram") }},
	}
}

func pairSend(path string) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	return unix.Sendto(pair[0], []byte(proof), 0, &unix.SockaddrUnix{Name: path})
}
