#!/usr/bin/env bash
# Runs the tests that reach unsafe code under the address sanitizer: the unit tests (kernels, fold, storage,
# mapping, reading past the page cache) and the tests of tests/ that scan or read files.
# `sanitize.sh [FILTER...]`: filters of test names.
#
# The sanitizer sees heap, stack and globals of this crate and of the crates that are built with it. It does
# not see RocksDB and zstd, which are C++ and C and built without it; within a mapped file it sees nothing, and
# it does not know Rust's rules of aliasing. For these there is Miri, which no stable toolchain has.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
host=$(rustc -vV | sed -n 's/^host: //p')
# Of its own, so that the other builds stay as they are.
export CARGO_TARGET_DIR="$GRADIX_CACHE/sanitize-target"
# The stable toolchain ships the runtime, and accepts the flag under this variable.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
# A database that lives as long as the process counts as leaked.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0:detect_stack_use_after_return=1"
# Enough to be quick; the sanitizer needs no more.
export CARGO_PROFILE_DEV_OPT_LEVEL=1

started=$SECONDS
# What is promised in milliseconds is not measured here.
# With a target named, build scripts and macros are not instrumented.
cargo test --locked --target "$host" --features serde --no-fail-fast \
    --lib --test ranges --test scan --test tiers --test fold --test index -- --skip cancelling_reacts "$@"
say "nothing found by the address sanitizer, in $((SECONDS - started)) s with building"
