#!/usr/bin/env bash
# The documentation with warnings denied: first as a user of the default features reads it, where a
# link into the adapter would dangle, then whole.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

use_rocksdb
export RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -Dwarnings"
cargo doc --locked --no-deps
cargo doc --locked --no-deps --features "$GRADIX_FEATURES"
say "documentation in $CARGO_TARGET_DIR/doc/gradix/index.html"
