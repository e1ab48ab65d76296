#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Puts what was built into a file system, or takes it out again.
#
#   BIN=bin DESTDIR= PREFIX=/usr/local ETC=/etc/ringfence UNITDIR=PREFIX/lib/systemd/system \
#     tools/install.sh install|uninstall
#
# A configuration that is there is kept; so is everything in ETC and the state
# directory when it is taken out.
set -euo pipefail

cd "$(dirname "$0")/.."
verb=${1:?install or uninstall}
BIN=${BIN:-bin}
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
ETC=${ETC:-/etc/ringfence}
UNITDIR=${UNITDIR:-$PREFIX/lib/systemd/system}
umask 022

unit=$DESTDIR$UNITDIR/ringfenced.service
completions=(
	"bash $DESTDIR$PREFIX/share/bash-completion/completions/ringfence"
	"zsh $DESTDIR$PREFIX/share/zsh/site-functions/_ringfence"
	"fish $DESTDIR$PREFIX/share/fish/vendor_completions.d/ringfence.fish"
)

# The paths of this installation in place of the usual ones.
located() { sed -e "s|/usr/local/bin/|$PREFIX/bin/|g" -e "s|/etc/ringfence/|$ETC/|g" "$1"; }

case $verb in
install)
	install -d "$DESTDIR$PREFIX/bin" "$DESTDIR$UNITDIR"
	install -d -m 0755 "$DESTDIR$ETC" "$DESTDIR$ETC/policy" "$DESTDIR$ETC/profiles"
	# install makes new files: a daemon that runs keeps the one it was started from.
	install -m 0755 "$BIN/ringfence" "$BIN/ringfence-policy" "$BIN/ringfenced" "$BIN/ringfence-init" "$DESTDIR$PREFIX/bin"
	located deploy/ringfenced.service >"$unit.new"
	chmod 0644 "$unit.new"
	mv "$unit.new" "$unit"
	config=$DESTDIR$ETC/ringfenced.yaml
	if [ ! -e "$config" ]; then
		located deploy/ringfenced.yaml >"$config.new"
		if [ "$ETC" != /etc/ringfence ]; then # not where the daemon looks by itself
			sed -i -E 's/^# (policyDir|profileDir):/\1:/' "$config.new"
		fi
		chmod 0644 "$config.new"
		mv "$config.new" "$config"
	fi
	for c in "${completions[@]}"; do
		install -d "$(dirname "${c#* }")"
		"$BIN/ringfence" completion "${c%% *}" >"${c#* }"
	done
	if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		if systemctl is-active -q ringfenced; then
			echo "the running daemon is still the old one; sandboxes go on if you say: systemctl restart ringfenced"
		else
			echo "to start it, now and at every boot: systemctl enable --now ringfenced"
		fi
	fi
	;;
uninstall)
	if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && systemctl is-active -q ringfenced; then
		echo "ringfenced runs: stop its sandboxes (ringfence stop), then systemctl disable --now ringfenced" >&2
		exit 1
	fi
	if [ -z "$DESTDIR" ] && [ -n "$(ls -A /run/ringfence/sandboxes 2>/dev/null)" ]; then
		echo "sandboxes run without a daemon: start it, stop them, and stop it, or nobody can any more" >&2
		exit 1
	fi
	rm -f "$unit" "$DESTDIR$PREFIX/bin/ringfence" "$DESTDIR$PREFIX/bin/ringfence-policy" "$DESTDIR$PREFIX/bin/ringfenced" "$DESTDIR$PREFIX/bin/ringfence-init"
	for c in "${completions[@]}"; do
		rm -f "${c#* }"
	done
	if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
	echo "left: $DESTDIR$ETC and the state directory (/var/lib/ringfence: event log, keys, documents); remove them by hand if you are sure"
	;;
*)
	echo "usage: tools/install.sh install|uninstall" >&2
	exit 2
	;;
esac
