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

# Before Go 1.27 the end of -fuzztime itself can fail a target, without an
# input to show for it (go.dev/issue/75804). Nothing else is forgiven.
only_time_up() {
	[ "$(grep -A1 '^--- FAIL: ' "$1")" = "$(printf '%s\n    context deadline exceeded' "$(grep -m1 '^--- FAIL: ' "$1")")" ] &&
		! grep -qE 'Failing input|^panic:|\.go:[0-9]+:' "$1"
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
while IFS=: read -r file target; do
	dir=./$(dirname "$file")
	if [ $# -gt 0 ] && ! printf '%s\n' "$@" | grep -qxF "$dir"; then continue; fi
	n=$((n + 1))
	if "${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -timeout 30m "$dir" >"$log" 2>&1 || only_time_up "$log"; then
		echo "ok  $dir $target  $(grep -o 'execs: [0-9]*' "$log" | tail -1)"
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
