#!/usr/bin/env bash
# Proves that an application which only stores and scans compiles no burn and nothing of a GPU:
# looks through the dependencies of the default features, then type-checks the crate with them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

# `--target all`: on no platform, not only on this one.
crates=$(cargo tree --locked --package gradix --target all --edges normal,build --prefix none --format '{p}' |
    sed 's/ .*//' | sort -u)
heavy=$(printf '%s\n' "$crates" | grep -E '^(burn|cubecl|wgpu|naga|cudarc|candle)' || true)
if [ -n "$heavy" ]; then
    printf '%s\n' "$heavy" >&2
    die "the default features pull in the crates above"
fi
say "the default features need $(($(printf '%s\n' "$crates" | wc -l) - 1)) crates (every platform and build scripts counted), none of them burn's or a GPU's"

use_rocksdb
cargo check --locked --package gradix
