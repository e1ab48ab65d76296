#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzz target for a bounded time.
#
#   tools/fuzz.sh TIME [PACKAGE-DIR...]
set -euo pipefail

cd "$(dirname "$0")/.."
time=${1:?how long for each target}
shift
failed=()
n=0

# Go minimises every input that reaches new code, for up to a minute each and
# with tries that grow with the square of its length: a target with seeds of some
# kilobytes does nothing else. So the tries are bounded, also those on an input
# that fails a target: run that one again with more.
minimise=100x

# Before Go 1.27 the end of -fuzztime itself can fail a target, without an
# input to show for it (go.dev/issue/75804). Nothing else is forgiven.
only_time_up() {
	[ "$(grep -A1 '^--- FAIL: ' "$1")" = "$(printf '%s\n    context deadline exceeded' "$(grep -m1 '^--- FAIL: ' "$1")")" ] &&
		! grep -qE 'Failing input|^panic:|\.go:[0-9]+:' "$1"
}

# A target that ran fewer than ten times a second was not fuzzed. The machine may
# have been busy, so it is run once more, for that number and not for a time: Go
# counts the inputs it has already, the baseline, too.
floor=0
if [[ $time =~ ^([0-9]+)s$ ]]; then floor=$((BASH_REMATCH[1] * 10)); fi

# fuzz DIR TARGET TIME|Nx
fuzz() {
	timeout 10m "${GO:-go}" test -run '^$' -fuzz "^$2\$" -fuzztime "$3" -fuzzminimizetime "$minimise" "$1" >"$log" 2>&1 || only_time_up "$log"
}

baseline() { grep -o 'baseline coverage: [0-9]*/[0-9]*' "$log" | tail -1 | cut -d/ -f2 | grep . || echo 0; }
executed() { grep -o 'execs: [0-9]*' "$log" | tail -1 | cut -d' ' -f2 | grep . || echo 0; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file target; do
	dir=./$(dirname "$file")
	if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qxF "$dir"; then continue; fi
	n=$((n + 1))
	if fuzz "$dir" "$target" "$time" && { [ "$(executed)" -ge "$floor" ] || fuzz "$dir" "$target" "$(($(baseline) + floor))x"; }; then
		if [ "$(executed)" -ge "$floor" ]; then
			echo "ok  $dir $target  execs: $(executed)"
		else
			echo "$dir $target: executed $(executed) times, fewer than the $floor asked for"
			failed+=("$dir.$target")
		fi
	else
		cat "$log"
		failed+=("$dir.$target")
	fi
done < <(git ls-files -co --exclude-standard '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //' | sort)
if [ ${#failed[@]} -gt 0 ]; then
	echo "fuzz targets that failed: ${failed[*]}" >&2
	exit 1
fi
echo "$n fuzz targets, $time each: nothing found"
