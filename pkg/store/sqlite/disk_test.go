// SPDX-License-Identifier: Apache-2.0

package sqlite

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// fault is a kind of input and output that can fail.
type fault uint8

const (
	faultRead fault = iota
	faultWrite
	faultSync
	faults
)

func (f fault) String() string { return [...]string{"read", "write", "sync"}[f] }

// disk stands between SQLite and a directory. The directory is what a process
// sees, the page cache; beside it the disk knows what a loss of power leaves of
// it. What a failed sync has not written is as Linux leaves it: in the cache, and
// written by no later sync.
type disk struct {
	dir string

	mu    sync.Mutex
	files map[string]*platter // by base name
	done  [faults]int         // how many succeeded or failed

	// fail says whether the nth of its kind, from 1, fails; nil: none does.
	fail func(kind fault, n int) bool
	// onChange is told after every change and every sync; nil: nobody is.
	onChange func()
}

// platter is what the disk has of one file, and what it may have besides.
type platter struct {
	durable []byte
	pending []change // since the last sync
	removed bool     // and the directory was not synced since
}

// change is one write, or one that sets the length.
type change struct {
	at   int64
	data []byte // nil: the length is now at
}

func (c change) apply(b []byte) []byte {
	if c.data == nil {
		return append(b[:min(int64(len(b)), c.at)], make([]byte, max(0, c.at-int64(len(b))))...)
	}
	if end := c.at + int64(len(c.data)); end > int64(len(b)) {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	copy(b[c.at:], c.data)
	return b
}

// at is what an address of C memory points to.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// fn is a function as C code finds it.
func fn[T any](f T) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

// call is the reverse of fn.
func call[T any](p uintptr) T { return *(*T)(unsafe.Pointer(&p)) }

type (
	openFunc     = func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32
	deleteFunc   = func(*libc.TLS, uintptr, uintptr, int32) int32
	closeFunc    = func(*libc.TLS, uintptr) int32
	moveFunc     = func(*libc.TLS, uintptr, uintptr, int32, int64) int32 // read and write
	truncateFunc = func(*libc.TLS, uintptr, int64) int32
	syncFunc     = func(*libc.TLS, uintptr, int32) int32
)

// rack is what SQLite's callbacks find their disk by. SQLite knows one list of
// file systems in a process, and so do we.
var rack = struct {
	sync.Once
	unix    lib.Tsqlite3_vfs
	making  sync.Mutex
	methods map[uintptr]uintptr // those of unix -> ours
	disks   sync.Map            // directory -> *disk
	handles sync.Map            // address of an open file -> handle
}{methods: map[uintptr]uintptr{}}

type handle struct {
	*disk
	name string
	unix *lib.Tsqlite3_io_methods

	fresh *atomic.Bool // a log or journal that may be new, and was not synced yet
}

const vfsName = "ringfence-faults"

// memoryDir is a directory in memory, where there is one: what is synced here is
// synced some thousand times.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ringfence-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// newDisk puts a disk under a directory, until the test ends.
func newDisk(t testing.TB, dir string) *disk {
	t.Helper()
	rack.Do(func() { mount(t) })
	d := &disk{dir: dir, files: map[string]*platter{}}
	rack.disks.Store(dir, d)
	t.Cleanup(func() { rack.disks.Delete(dir) })
	return d
}

func mount(t testing.TB) {
	t.Helper()
	tls := libc.NewTLS()
	defer tls.Close()
	unixName, err := libc.CString("unix")
	if err != nil {
		t.Fatal(err)
	}
	name, err := libc.CString(vfsName)
	if err != nil {
		t.Fatal(err)
	}
	rack.unix = *at[lib.Tsqlite3_vfs](lib.Xsqlite3_vfs_find(tls, unixName))
	ours := inC(tls, rack.unix)
	v := at[lib.Tsqlite3_vfs](ours)
	v.FzName, v.FpNext = name, 0
	v.FxOpen, v.FxDelete = fn[openFunc](diskOpen), fn[deleteFunc](diskDelete)
	if rc := lib.Xsqlite3_vfs_register(tls, ours, 0); rc != lib.SQLITE_OK {
		t.Fatalf("registering: %d", rc)
	}
}

// inC copies a structure to C memory, which the process keeps.
func inC[T any](tls *libc.TLS, v T) uintptr {
	p := libc.Xmalloc(tls, libc.Tsize_t(unsafe.Sizeof(v)))
	*at[T](p) = v
	return p
}

func diskOpen(tls *libc.TLS, vfs, name, file uintptr, flags int32, out uintptr) int32 {
	fresh := &atomic.Bool{}
	fresh.Store(flags&lib.SQLITE_OPEN_CREATE != 0 && flags&(lib.SQLITE_OPEN_WAL|lib.SQLITE_OPEN_MAIN_JOURNAL) != 0)
	rc := call[openFunc](rack.unix.FxOpen)(tls, vfs, name, file, flags, out)
	if rc != lib.SQLITE_OK || name == 0 {
		return rc
	}
	path := libc.GoString(name)
	d, ok := rack.disks.Load(filepath.Dir(path))
	if !ok {
		return rc
	}
	f := at[lib.Tsqlite3_file](file)
	unixIO := at[lib.Tsqlite3_io_methods](f.FpMethods)
	f.FpMethods = ourMethods(tls, f.FpMethods)
	rack.handles.Store(file, handle{d.(*disk), filepath.Base(path), unixIO, fresh})
	return rc
}

// ourMethods are those of unix (it has more than one set) with ours instead.
func ourMethods(tls *libc.TLS, unixIO uintptr) uintptr {
	rack.making.Lock()
	defer rack.making.Unlock()
	if rack.methods[unixIO] == 0 {
		m := *at[lib.Tsqlite3_io_methods](unixIO)
		m.FxClose, m.FxRead, m.FxWrite = fn[closeFunc](diskClose), fn[moveFunc](diskRead), fn[moveFunc](diskWrite)
		m.FxTruncate, m.FxSync = fn[truncateFunc](diskTruncate), fn[syncFunc](diskSync)
		rack.methods[unixIO] = inC(tls, m)
	}
	return rack.methods[unixIO]
}

func handleOf(file uintptr) handle {
	h, _ := rack.handles.Load(file)
	return h.(handle)
}

func diskDelete(tls *libc.TLS, vfs, name uintptr, dirSync int32) int32 {
	path := libc.GoString(name)
	d, ok := rack.disks.Load(filepath.Dir(path))
	if ok && d.(*disk).fails(faultWrite) {
		return lib.SQLITE_IOERR_DELETE
	}
	rc := call[deleteFunc](rack.unix.FxDelete)(tls, vfs, name, dirSync)
	if ok && rc == lib.SQLITE_OK {
		d.(*disk).forget(filepath.Base(path))
	}
	return rc
}

func diskClose(tls *libc.TLS, file uintptr) int32 {
	h := handleOf(file)
	rack.handles.Delete(file)
	return call[closeFunc](h.unix.FxClose)(tls, file)
}

func diskRead(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	h := handleOf(file)
	if h.fails(faultRead) {
		return lib.SQLITE_IOERR_READ
	}
	return call[moveFunc](h.unix.FxRead)(tls, file, buf, n, off)
}

func diskWrite(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	h := handleOf(file)
	if h.fails(faultWrite) {
		return lib.SQLITE_IOERR_WRITE
	}
	rc := call[moveFunc](h.unix.FxWrite)(tls, file, buf, n, off)
	if rc == lib.SQLITE_OK {
		h.change(h.name, change{off, append([]byte{}, unsafe.Slice(at[byte](buf), n)...)})
	}
	return rc
}

func diskTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	h := handleOf(file)
	if h.fails(faultWrite) {
		return lib.SQLITE_IOERR_TRUNCATE
	}
	rc := call[truncateFunc](h.unix.FxTruncate)(tls, file, size)
	if rc == lib.SQLITE_OK {
		h.change(h.name, change{at: size})
	}
	return rc
}

func diskSync(tls *libc.TLS, file uintptr, flags int32) int32 {
	h := handleOf(file)
	if h.fails(faultSync) {
		h.sync(h.name, false)
		return lib.SQLITE_IOERR_FSYNC
	}
	rc := call[syncFunc](h.unix.FxSync)(tls, file, flags)
	h.sync(h.name, rc == lib.SQLITE_OK)
	if rc == lib.SQLITE_OK && h.fresh.Swap(false) { // SQLite syncs the directory then
		h.syncDir()
	}
	return rc
}

// fails counts, and says whether this one fails.
func (d *disk) fails(kind fault) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.done[kind]++
	return d.fail != nil && d.fail(kind, d.done[kind])
}

func (d *disk) file(name string) *platter {
	if d.files[name] == nil {
		d.files[name] = &platter{}
	}
	return d.files[name]
}

func (d *disk) change(name string, c change) {
	d.mu.Lock()
	f := d.file(name)
	f.removed = false
	f.pending = append(f.pending, c)
	d.mu.Unlock()
	d.tell()
}

// sync ends a sync of a file: what was written since the one before is on the
// disk, or never will be.
func (d *disk) sync(name string, ok bool) {
	d.mu.Lock()
	f := d.file(name)
	if ok {
		for _, c := range f.pending {
			f.durable = c.apply(f.durable)
		}
	}
	f.pending = nil
	d.mu.Unlock()
	d.tell()
}

// forget is the removal of a file. Until the directory is synced it may be there
// again after a loss of power.
func (d *disk) forget(name string) {
	d.mu.Lock()
	f := d.file(name)
	f.removed = true
	f.pending = append(f.pending, change{at: 0})
	d.mu.Unlock()
	d.tell()
}

func (d *disk) syncDir() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		if f.removed {
			delete(d.files, name)
		}
	}
}

func (d *disk) tell() {
	if d.onChange != nil {
		d.onChange()
	}
}

// synced is for [Options.synced]: the whole file was written and synced.
func (d *disk) synced(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, err := os.ReadFile(path)
	if err == nil {
		*d.file(filepath.Base(path)) = platter{durable: b}
	}
}

// keep chooses what a loss of power leaves of writes that were not synced.
type keep func(file string, n int, sector int64) bool

func keepNone(string, int, int64) bool { return false }
func keepAll(string, int, int64) bool  { return true }

// keepSome keeps some sectors, by lot.
func keepSome(seed uint64) keep {
	rng := rand.New(rand.NewPCG(seed, 7))
	return func(string, int, int64) bool { return rng.IntN(2) == 0 }
}

// keepWrites loses whole writes by lot, one of three.
func keepWrites(seed uint64) keep {
	return func(file string, n int, _ int64) bool {
		return rand.New(rand.NewPCG(seed, uint64(n)+uint64(len(file))<<32)).IntN(3) != 0
	}
}

const sector = 512

// powerLoss writes what the disk has into a directory.
func (d *disk) powerLoss(t testing.TB, to string, kept keep) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, f := range d.files {
		b := append([]byte{}, f.durable...)
		for i, c := range f.pending {
			if c.data == nil {
				if kept(name, i, -1) {
					b = c.apply(b)
				}
				continue
			}
			for from := int64(0); from < int64(len(c.data)); {
				next := min(int64(len(c.data)), (c.at+from)/sector*sector+sector-c.at)
				if kept(name, i, (c.at+from)/sector) {
					b = change{c.at + from, c.data[from:next]}.apply(b)
				}
				from = next
			}
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

var diskDirs atomic.Int64 // for names of directories that are not reused
