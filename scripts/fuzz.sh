#!/usr/bin/env bash
# Runs every fuzz target of fuzz/ for a while: `fuzz.sh [SECONDS [TARGET...]]`, 60 seconds each by
# default. Finds are left in fuzz/artifacts, the corpus in the cache.
#
# libFuzzer's instrumentation and the address sanitizer are unstable compiler flags. The stable
# toolchain ships the sanitizer's runtime and accepts the flags under RUSTC_BOOTSTRAP=1, so no
# nightly is needed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

seconds=${1:-60}
[ $# -gt 0 ] && shift
[ -f fuzz/Cargo.toml ] || die "there is no fuzz/Cargo.toml"
"$GRADIX_ROOT/scripts/install-packages.sh" build
PATH="$("$GRADIX_ROOT/scripts/install-tool.sh" cargo-fuzz 0.13.2):$PATH"
use_rocksdb
# fuzz/ has a lock file of its own, and the archive fits one version of the bindings only.
locked_rocksdb() { awk '$1 == "name" { name = $3 } $1 == "version" && name == "\"librocksdb-sys\"" { print $3 }' "$1"; }
[ "$(locked_rocksdb fuzz/Cargo.lock)" = "$(locked_rocksdb Cargo.lock)" ] ||
    die "fuzz/Cargo.lock and Cargo.lock name different versions of librocksdb-sys"
export RUSTC_BOOTSTRAP=1
# Instrumented code must not meet the other builds in one folder.
export CARGO_TARGET_DIR="$GRADIX_CACHE/fuzz-target"

if [ $# -gt 0 ]; then
    targets=("$@")
else
    mapfile -t targets < <(cargo fuzz list)
fi
[ ${#targets[@]} -gt 0 ] || die "fuzz/Cargo.toml names no target"
for target in "${targets[@]}"; do
    say "fuzzing $target for $seconds s"
    corpus="$GRADIX_CACHE/fuzz-corpus/$target"
    mkdir -p "$corpus"
    # A database that lives as long as the process counts as leaked. Long inputs from the start: most
    # of ours are lists of edits or operations.
    ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0" cargo fuzz run "$target" "$corpus" -- -max_total_time="$seconds" -rss_limit_mb=2048 \
        -len_control=0 -max_len=512
done
