#!/usr/bin/env bash
# Formatting and clippy with warnings denied, for the lean engine and with the devices.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

for component in rustfmt clippy; do
    cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 || rustup component add "$component"
done
cargo fmt --all --check
use_rocksdb
cargo clippy --locked --all-targets --package gradix -- -D warnings
cargo clippy --locked --workspace --all-targets --features "$GRADIX_FEATURES" -- -D warnings

# Each edit of the list must still find its place.
python3 scripts/mutants.py --check
