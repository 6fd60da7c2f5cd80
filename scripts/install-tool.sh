#!/usr/bin/env bash
# Builds a cargo tool of a fixed version from the crate registry into the cache, if it is not
# there: `install-tool.sh cargo-deny 0.20.2`. Prints the folder of the program.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ $# -eq 2 ] || die "usage: install-tool.sh NAME VERSION"
name=$1
version=$2
# cargo's own record of what is installed there.
if ! grep -qx "$name v$version:" <<<"$(cargo install --root "$GRADIX_TOOLS" --list 2>/dev/null)"; then
    say "building $name $version once, into $GRADIX_TOOLS" >&2
    CARGO_TARGET_DIR="$GRADIX_CACHE/tools-build" \
        cargo install --locked --quiet --root "$GRADIX_TOOLS" --version "=$version" "$name" >&2
    rm -rf "$GRADIX_CACHE/tools-build"
fi
printf '%s\n' "$GRADIX_TOOLS/bin"
