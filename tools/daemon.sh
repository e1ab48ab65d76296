#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A daemon from this checkout in the background, beside an installed one.
#
#   tools/daemon.sh start DIR [CONFIG]
#   tools/daemon.sh stop DIR
set -euo pipefail

config=${3:+$(realpath "$3")}
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "run as root: the daemon owns cgroups, namespaces and kernel programs" >&2
	exit 1
fi
verb=${1:?start or stop}
dir=$(realpath -m "${2:?directory}")
pidfile=$dir/pid

# The daemon's process id, if it is one of ours and alive.
running() {
	local pid
	pid=$(cat "$pidfile" 2>/dev/null) || return 1
	[ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "--run-dir $dir/run " || return 1
	echo "$pid"
}

case $verb in
start)
	if pid=$(running); then
		echo "already running (process $pid)" >&2
	else
		umask 022
		if [ -e "$dir" ] && [ "$(stat -c %u "$dir")" != "$(id -u)" ]; then
			echo "$dir belongs to somebody else" >&2
			exit 1
		fi
		mkdir -p "$dir/policy"
		setsid bin/ringfenced ${config:+--config "$config"} --run-dir "$dir/run" --state-dir "$dir/state" --policy-dir "$dir/policy" >>"$dir/log" 2>&1 </dev/null &
		pid=$!
		echo "$pid" >"$pidfile"
		for _ in $(seq 300); do
			bin/ringfence --socket "$dir/run/ringfence.sock" ps >/dev/null 2>&1 && break
			if ! kill -0 "$pid" 2>/dev/null; then
				cat "$dir/log" >&2
				exit 1
			fi
			sleep 0.1
		done
	fi
	cat <<TEXT
The daemon runs. Its log is $dir/log, its policy directory $dir/policy. To use it:

  export RINGFENCE_SOCKET=$dir/run/ringfence.sock PATH=$PWD/bin:\$PATH
  ringfence run --profile coding -- bash
TEXT
	;;
stop)
	if ! pid=$(running) && compgen -G "$dir/run/sandboxes/*" >/dev/null; then
		echo "the daemon is gone and its sandboxes are not: it is started again to end them"
		"$0" start "$dir" >/dev/null
	fi
	if ! pid=$(running); then
		echo "not running"
		exit 0
	fi
	adopted=$(bin/ringfence --socket "$dir/run/ringfence.sock" ps 2>/dev/null | awk '/\(adopted\)/ {print $2}')
	[ -z "$adopted" ] || echo "adopted processes go on WITHOUT a fence:" $adopted
	kill -INT "$pid" # stops the sandboxes too
	for _ in $(seq 600); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	if kill -0 "$pid" 2>/dev/null; then
		echo "the daemon (process $pid) does not stop; see $dir/log" >&2
		exit 1
	fi
	rm -f "$pidfile"
	echo "stopped; the event log and the policy are still in $dir"
	;;
*)
	echo "usage: tools/daemon.sh start DIR [CONFIG] | stop DIR" >&2
	exit 2
	;;
esac
