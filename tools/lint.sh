#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Everything that can be said about the sources without running them. All
# checks run; exit 1 if one of them complains.
set -uo pipefail

cd "$(dirname "$0")/.."
GO=${GO:-go}
bad=0
complain() {
	echo "lint: $1" >&2
	sed 's/^/  /' >&2
	bad=1
}
sources() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done; }
generated() { head -n 3 "$1" | grep -q '^// Code generated .* DO NOT EDIT\.$'; }

out=$(sources '*.go' | xargs gofmt -l)
[ -z "$out" ] || complain "not formatted; run gofmt -w" <<<"$out"

out=$("$GO" vet ./... 2>&1) || complain "go vet" <<<"$out"

out=$("$GO" tool staticcheck ./... 2>&1) || complain "staticcheck" <<<"$out"

out=$(sources '*.go' '*.c' '*.h' '*.sh' '*.py' '*.mjs' '*.js' 'profiles/*.yaml' Makefile .ci/run | while read -r f; do
	generated "$f" || head -n 3 "$f" | grep -q 'SPDX-License-Identifier: ' || echo "$f"
done)
[ -z "$out" ] || complain "no SPDX-License-Identifier in the first three lines" <<<"$out"

out=$(sources 'bpf/*.c' 'bpf/*.h' | while read -r f; do
	head -n 1 "$f" | grep -qF '/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */' || echo "$f"
done)
[ -z "$out" ] || complain "kernel programs are (GPL-2.0-only OR BSD-2-Clause)" <<<"$out"

out=$(sources '*.go' '*.c' '*.h' '*.sh' | while read -r f; do
	generated "$f" && continue
	n=$(wc -l <"$f")
	[ "$n" -le 600 ] || echo "$f: $n lines"
done)
[ -z "$out" ] || complain "over 600 lines; split by noun" <<<"$out"

exit $bad
