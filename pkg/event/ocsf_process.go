// SPDX-License-Identifier: Apache-2.0

package event

import (
	"path"
	"strconv"
	"strings"
)

var (
	classProcess = class{uid: 1007, caption: "Process Activity", categoryUID: 1, category: "System Activity", device: true}
	classFile    = class{uid: 1001, caption: "File System Activity", categoryUID: 1, category: "System Activity", device: true}
	classKernel  = class{uid: 1003, caption: "Kernel Activity", categoryUID: 1, category: "System Activity", device: true}
)

// fileVerbs knows plain words and the names of Landlock's access rights as the
// kernel's audit records print them.
var fileVerbs = verbs{
	"create": {1, "Create"}, "read": {2, "Read"}, "write": {3, "Update"}, "update": {3, "Update"}, "delete": {4, "Delete"},
	"rename": {5, "Rename"}, "chmod": {6, "Set Attributes"}, "mount": {12, "Mount"}, "unmount": {13, "Unmount"}, "open": {14, "Open"},
	"fs.execute": {14, "Open"}, "fs.read_file": {2, "Read"}, "fs.read_dir": {2, "Read"}, "fs.write_file": {3, "Update"},
	"fs.truncate": {3, "Update"}, "fs.remove_dir": {4, "Delete"}, "fs.remove_file": {4, "Delete"}, "fs.make_char": {1, "Create"},
	"fs.make_dir": {1, "Create"}, "fs.make_reg": {1, "Create"}, "fs.make_sock": {1, "Create"}, "fs.make_fifo": {1, "Create"},
	"fs.make_block": {1, "Create"}, "fs.make_sym": {1, "Create"}, "fs.refer": {5, "Rename"}, "fs.change_topology": {12, "Mount"},
}

func fileActivity(e *Event) activity {
	first, _, _ := strings.Cut(e.Activity, ",")
	return fileVerbs.find(first, other(e.Activity))
}

func execBody(j *jsonBuf, e *Event, n *Node) {
	j.open("actor")
	if e.PPID != 0 {
		j.open("process")
		j.numAlways("pid", uint64(e.PPID))
		j.close()
	}
	appendUser(j, e)
	j.strAlways("app_name", actorApp(e))
	j.close()
	j.enum("launch_type_id", 3, "launch_type", "Exec")
	appendProcess(j, e)
}

func exitBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	j.numAlways("exit_code", uint64(e.Status))
	appendProcess(j, e)
}

func fileBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	appendFile(j, e.Path, 0, "Unknown")
}

func syscallBody(j *jsonBuf, e *Event, n *Node) {
	appendActor(j, e)
	name := firstOf(e.Object, e.Activity, "unknown")
	j.open("kernel")
	j.strAlways("name", name)
	j.enum("type_id", 2, "type", "System Call")
	j.strAlways("system_call", name)
	j.close()
}

// appendActor writes who did it: a process of a sandbox, an operator, or us.
func appendActor(j *jsonBuf, e *Event) {
	j.open("actor")
	if e.PID != 0 {
		appendProcess(j, e)
	}
	appendUser(j, e)
	j.strAlways("app_name", actorApp(e))
	j.close()
}

func actorApp(e *Event) string {
	if e.Kind == KindOperator { // whoever acts is outside
		return firstOf(e.Comm, e.Source, "ringfence")
	}
	if e.Sandbox != "" {
		return firstOf(scopeSegment(e.Scope, "agent"), e.Sandbox)
	}
	return firstOf(e.Source, "ringfence")
}

// appendUser writes the acting user where one is known; no process of a
// sandbox has uid 0, so 0 means unknown.
func appendUser(j *jsonBuf, e *Event) {
	if e.Actor == "" && e.UID == 0 {
		return
	}
	j.open("user")
	j.str("name", e.Actor)
	if e.UID != 0 {
		j.strNum("uid", uint64(e.UID))
	}
	j.close()
}

func appendProcess(j *jsonBuf, e *Event) {
	j.open("process")
	j.numAlways("pid", uint64(e.PID))
	j.str("name", e.Comm)
	j.str("cmd_line", e.Args)
	j.str("path", e.Exe)
	if e.Exe != "" {
		appendFile(j, e.Exe, 8, "Executable File")
	}
	if e.Kind != KindOperator {
		j.str("sandbox", e.Sandbox)
	}
	if e.UID != 0 {
		j.open("user")
		j.strNum("uid", uint64(e.UID))
		j.close()
	}
	if e.PPID != 0 {
		j.open("parent_process")
		j.numAlways("pid", uint64(e.PPID))
		j.close()
	}
	appendAncestry(j, e.Parents)
	j.close()
}

// appendAncestry reads "pid:comm < pid:comm"; what does not look like that is
// kept in unmapped only.
func appendAncestry(j *jsonBuf, parents string) {
	if parents == "" {
		return
	}
	started := false
	for part := range strings.SplitSeq(parents, " < ") {
		p, comm, ok := strings.Cut(part, ":")
		pid, err := strconv.ParseUint(p, 10, 32)
		if !ok || err != nil {
			continue
		}
		if !started {
			j.openList("ancestry")
			started = true
		}
		j.openItem()
		j.numAlways("pid", pid)
		j.str("name", comm)
		j.close()
	}
	if started {
		j.closeList()
	}
}

func appendFile(j *jsonBuf, p string, typeID uint32, typeName string) {
	j.open("file")
	name := "unknown"
	if p != "" {
		name = path.Base(p)
	}
	j.strAlways("name", name)
	j.str("path", p)
	j.enum("type_id", typeID, "type", typeName)
	j.close()
}

func firstOf(s ...string) string {
	for _, v := range s {
		if v != "" {
			return v
		}
	}
	return ""
}
