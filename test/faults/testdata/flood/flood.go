// SPDX-License-Identifier: Apache-2.0

// Command flood is an agent that tries what it may not as fast as it can:
//
//	flood connect N   N connects of UDP sockets to addresses that are all different
//	flood open N      N opens of a file that it may not read
//	flood spawn N     N processes that end at once
//
// It says how many were refused, or ran.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

func main() {
	n, err := strconv.Atoi(os.Args[2])
	kinds := map[string]func(from, n int) int64{"connect": connect, "open": open, "spawn": spawn}
	kind := kinds[os.Args[1]]
	if err != nil || kind == nil {
		panic(fmt.Sprint("no such flood: ", os.Args))
	}
	var done atomic.Int64
	var wg sync.WaitGroup
	threads := runtime.NumCPU()
	for i := range threads {
		wg.Go(func() {
			from, to := n*i/threads, n*(i+1)/threads
			done.Add(kind(from, to-from))
		})
	}
	wg.Wait()
	fmt.Println("done", done.Load())
}

func connect(from, n int) (refused int64) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	for i := from; i < from+n; i++ {
		to := unix.SockaddrInet4{Port: 10000 + i%50000, Addr: [4]byte{203, 0, 113, byte(i / 50000)}}
		if unix.Connect(fd, &to) == unix.EACCES {
			refused++
		}
	}
	return refused
}

func open(_, n int) (refused int64) {
	for range n {
		if fd, err := unix.Open("/proc/1/mem", unix.O_RDONLY, 0); err == nil {
			unix.Close(fd)
		} else {
			refused++
		}
	}
	return refused
}

func spawn(_, n int) (ran int64) {
	for range n {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err != nil {
			panic(err)
		}
		if st, err := p.Wait(); err == nil && st.Success() {
			ran++
		}
	}
	return ran
}
