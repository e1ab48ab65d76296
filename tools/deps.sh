#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs from apt what a job needs and this machine lacks.
#
#   tools/deps.sh build             what `make build` needs besides Go
#   tools/deps.sh generate          clang and friends, for `make generate`
#   tools/deps.sh test              the programs that tests run
#   tools/deps.sh bench             what the benchmarks compare with
#   tools/deps.sh kernels           what `make test-kernels` boots kernels with
#   tools/deps.sh --check JOB...    install nothing; say what is missing, exit 1
set -euo pipefail

check=no
if [ "${1:-}" = --check ]; then
	check=yes
	shift
fi

missing=()

# need PACKAGE TEST...: the package is missing when the test fails.
need() {
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || missing+=("$package")
}

has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1"; }

# Debian's own Go is older than go.mod asks for.
go_is_new_enough() {
	local want have
	want=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")
	have=$( (go env GOVERSION 2>/dev/null || echo go0) | sed 's/^go//')
	[ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] && return
	echo "Go $want or newer is needed (here: ${have/#0/none}): install it from https://go.dev/dl" >&2
	exit 1
}
any() { compgen -G "$1"; }

for job in "$@"; do
	case $job in
	build)
		go_is_new_enough
		need gcc has gcc
		need libc6-dev test -e /usr/include/stdio.h
		need pkg-config has pkg-config
		need libseccomp-dev pkg-config --exists libseccomp
		need ca-certificates test -e /etc/ssl/certs/ca-certificates.crt
		;;
	generate)
		need clang has clang
		need llvm has llvm-strip
		need libbpf-dev test -e /usr/include/bpf/bpf_helpers.h
		need linux-libc-dev test -e /usr/include/linux/bpf.h
		;;
	test)
		for p in curl git openssl python3 wget; do need "$p" has "$p"; done
		need bubblewrap has bwrap
		need postgresql any '/usr/lib/postgresql/*/bin/initdb'
		need postgresql-client has psql
		need nodejs has node
		need npm has npm
		need default-jdk-headless has javac
		need procps has ps
		need iproute2 has ip
		need runc has runc
		;;
	bench)
		need bubblewrap has bwrap
		need nginx-light has nginx
		;;
	kernels)
		need qemu-system-x86 has qemu-system-x86_64
		need e2fsprogs has mke2fs
		need kmod has depmod
		need xz-utils has xz
		need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
		;;
	*)
		echo "tools/deps.sh: unknown job '$job'; jobs are build, generate, test, bench and kernels" >&2
		exit 2
		;;
	esac
done

[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$check" = yes ]; then
	echo "missing: ${missing[*]}" >&2
	exit 1
fi
if ! has apt-get >/dev/null; then
	echo "tools/deps.sh: this machine has no apt; install what these Debian packages hold: ${missing[*]}" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "tools/deps.sh: run as root, or install first: apt-get install ${missing[*]}" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
retry() {
	local i
	for i in 1 2 3 4; do
		"$@" && return 0
		echo "tools/deps.sh: attempt $i of '$*' failed" >&2
		sleep $((i * 5))
	done
	return 1
}
echo "installing: ${missing[*]}"
retry apt-get update -qq
retry apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
