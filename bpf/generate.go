// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the kernel programs, compiled and embedded, and the Go
// twins of every type they share with the keeper. The C sources are dual
// BSD-2-Clause/GPL-2.0; the object files are committed so that building needs
// no clang. After changing C, run `go generate ./bpf` with clang 14.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang -strip llvm-strip -type rf_layout -type rf_hook -type rf_verdict_kind -type rf_reason -type rf_form -type rf_record_type -type rf_ring -type rf_outcome -type rf_flag -type rf_state -type rf_name_key -type rf_name_value -type rf_cidr_key -type rf_cidr_value -type rf_rate -type rf_head -type rf_verdict -type rf_exec -type rf_exit -type rf_parent -type rf_origin -type rf_program -type rf_bucket -type rf_read_key -type rf_subject -type rf_call_row -type rf_watch_key -type rf_refusal -type rf_guard -type rf_entry_way -type rf_entry_key -type rf_guarded Fence fence.bpf.c -- -O2 -g -Wall -Werror -mcpu=v2 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang -strip llvm-strip Process process.bpf.c -- -O2 -g -Wall -Werror -mcpu=v2 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang -strip llvm-strip Refusal refusal.bpf.c -- -O2 -g -Wall -Werror -mcpu=v2 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang -strip llvm-strip Guard guard.bpf.c -- -O2 -g -Wall -Werror -mcpu=v2 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -go-package bpf -target bpfel -cc clang -strip llvm-strip Steer steer.bpf.c -- -O2 -g -Wall -Werror -mcpu=v2 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
