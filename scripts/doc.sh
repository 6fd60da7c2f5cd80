#!/usr/bin/env bash
# The documentation with warnings denied: first as a user of the default features reads it, where a
# link into the adapter would dangle, then whole. Before that, a look at the types in the public API.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

use_rocksdb
export RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -Dwarnings"
# With the examples, and so with the dev-dependencies: these turn on features of three small crates on
# which most of burn and wgpu depends, and without them all that clippy has checked is checked again.
whole=(--locked --no-deps --workspace --features "$GRADIX_FEATURES" --lib --examples)
RUSTDOC="$GRADIX_ROOT/scripts/rustdoc-json.sh" cargo doc "${whole[@]}"
if command -v python3 >/dev/null 2>&1; then
    python3 scripts/public-api.py "$CARGO_TARGET_DIR/doc/gradix.json"
else
    shout "The types of the public API are NOT CHECKED: there is no python3."
fi
cargo doc --locked --no-deps --package gradix
cargo doc "${whole[@]}"
say "documentation in $CARGO_TARGET_DIR/doc/gradix/index.html"
