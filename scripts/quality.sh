#!/usr/bin/env bash
# How good rankings are: gradix with and without curvature beside baselines, exact gradients and TRAK, in one table, judged
# by retraining (tests/fixtures/digits) and by what the demo planted, if target/demo/results.json is there (`make demo`).
# It leaves quality.csv and quality.svg in target/quality of the checkout. Arguments go to the program.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
# Alone: it needs no burn.
cargo build --quiet --locked --package quality
started=$SECONDS
"$CARGO_TARGET_DIR/debug/quality" "$@"
say "measured in $((SECONDS - started)) s"
