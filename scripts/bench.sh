#!/usr/bin/env bash
# Runs the benchmarks with the release profile and the default features; arguments go to cargo
# bench. RocksDB comes from the cache here too.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
cargo bench --locked --benches "$@"
