#!/usr/bin/env bash
# Installs what is missing, builds, and runs the demonstration. Arguments go to the program.
# It leaves report.html, results.json and index.gradix in target/demo of the checkout.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

started=$SECONDS
"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
# The demo computes on burn's CPU device. wgpu would add two thirds to the build of its crates, so it is
# left out, unless the tests' build is there: with their features nearly all is built already.
features=burn
if compgen -G "$CARGO_TARGET_DIR/debug/deps/libburn_wgpu-*.rlib" >/dev/null; then
    features=$GRADIX_FEATURES
fi
say "building the demo (the first time: burn too)"
# With every package of the workspace, and an example for its dev-dependencies, as the tests are built: they decide on the
# features of what all use.
for_demo=(--locked --workspace --features "$features" --bin demo --example quickstart)
cargo build "${for_demo[@]}"
built=$SECONDS

say "running the demo"
"$CARGO_TARGET_DIR/debug/demo" "$@"
say "built in $((built - started)) s, ran in $((SECONDS - built)) s"
for file in report.html results.json index.gradix; do
    [ -e "target/demo/$file" ] || die "the demo left no target/demo/$file"
    say "target/demo/$file"
done
