#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/ for a while, beginning with the inputs in fuzz/corpus, and prints what each
# reached: `fuzz.sh [SECONDS [TARGET...]]`, 60 seconds each and all targets by default. Fails if one finds
# something; the finds are left in fuzz/artifacts, the corpus that grows in the cache.
#
#   fuzz.sh --replay TARGET FILE...   runs single inputs
#   fuzz.sh --seeds [TARGET...]       chooses the inputs in fuzz/corpus anew from the cache's corpus
#
# libFuzzer's instrumentation and the address sanitizer are unstable compiler flags. The stable toolchain
# ships the sanitizer's runtime and accepts the flags under RUSTC_BOOTSTRAP=1, so neither a nightly nor
# cargo-fuzz is needed; the flags are those of cargo-fuzz 0.13.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

# Inputs for each target in the repository.
SEEDS=24

mode=run
case ${1:-} in
    --replay | --seeds) mode=${1#--} && shift ;;
esac
seconds=60
if [ "$mode" = run ] && [ $# -gt 0 ]; then
    seconds=$1
    shift
fi

[ -f fuzz/Cargo.toml ] || die "there is no fuzz/Cargo.toml"
"$GRADIX_ROOT/scripts/install-packages.sh" build >&2
use_rocksdb
# fuzz/ has a lock file of its own, and the archive fits one version of the bindings only.
locked_rocksdb() { awk '$1 == "name" { name = $3 } $1 == "version" && name == "\"librocksdb-sys\"" { print $3 }' "$1"; }
[ "$(locked_rocksdb fuzz/Cargo.lock)" = "$(locked_rocksdb Cargo.lock)" ] ||
    die "fuzz/Cargo.lock and Cargo.lock name different versions of librocksdb-sys"

host=$(rustc -vV | sed -n 's/^host: //p')
# Instrumented code must not meet the other builds in one folder.
export CARGO_TARGET_DIR="$GRADIX_CACHE/fuzz-target"
flags=(--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module)
for flag in sanitizer-coverage-level=4 sanitizer-coverage-inline-8bit-counters sanitizer-coverage-pc-table \
    sanitizer-coverage-trace-compares simplifycfg-branch-fold-threshold=0; do
    flags+=("-Cllvm-args=-$flag")
done
flags+=(-Ccodegen-units=1)
started=$SECONDS
# With a target named, build scripts and macros are not instrumented.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="${flags[*]}" \
    cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" >&2
say "the fuzz targets are built, after $((SECONDS - started)) s" >&2

mapfile -t all < <(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml | sort)
[ ${#all[@]} -gt 0 ] || die "fuzz/Cargo.toml names no target"
program() { printf '%s/%s/release/%s' "$CARGO_TARGET_DIR" "$host" "$1"; }
# A database that lives as long as the process counts as leaked.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0"
limits=(-timeout=10 -rss_limit_mb=2048)
# The indexes that are tried, in memory where the system has a file system there.
scratch=$([ -d /dev/shm ] && mktemp -d -p /dev/shm gradix-fuzz-XXXXXX || mktemp -d)
export TMPDIR=$scratch
trap 'rm -rf "$scratch"' EXIT

if [ "$mode" = replay ]; then
    target=$1
    shift
    "$(program "$target")" "${limits[@]}" "$@"
    exit
fi

if [ "$mode" = seeds ]; then
    for target in "${@:-${all[@]}}"; do
        chosen=$(mktemp -d)
        "$(program "$target")" -set_cover_merge=1 -max_len=512 "$chosen" "$GRADIX_CACHE/fuzz-corpus/$target" \
            "fuzz/corpus/$target" >"$chosen.log" 2>&1 || die "merging failed: $chosen.log"
        rm -rf "fuzz/corpus/$target"
        mkdir -p "fuzz/corpus/$target"
        # The longest: each reaches much by itself.
        find "$chosen" -type f -printf '%s %p\n' | sort -rn | head -n $SEEDS | while read -r _ file; do
            cp "$file" "fuzz/corpus/$target/$(basename "$file" | cut -c 1-12)"
        done
        say "$target: $(find "fuzz/corpus/$target" -type f | wc -l) of $(find "$chosen" -type f | wc -l) inputs"
        rm -rf "$chosen" "$chosen.log"
    done
    exit
fi

targets=("${@:-${all[@]}}")
log=$scratch/log
rows=()
failed=()
for target in "${targets[@]}"; do
    say "fuzzing $target for $seconds s"
    corpus="$GRADIX_CACHE/fuzz-corpus/$target"
    mkdir -p "$corpus" "fuzz/corpus/$target" "fuzz/artifacts/$target"
    found=no
    # Long inputs from the start: most of ours are lists of edits or operations.
    if ! "$(program "$target")" "$corpus" "fuzz/corpus/$target" "${limits[@]}" -max_total_time="$seconds" \
        -len_control=0 -max_len=512 -print_final_stats=1 -artifact_prefix="fuzz/artifacts/$target/" \
        >"$log" 2>&1; then
        found=YES
        failed+=("$target")
        grep -vE '^#[0-9]+\s+(NEW|REDUCE|pulse|RELOAD)' "$log" | tail -n 60
    fi
    number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
    reached=$(grep -oE 'cov: [0-9]+ ft: [0-9]+' "$log" | tail -n 1)
    read -r _ edges _ features <<<"${reached:-cov: - ft: -}"
    rows+=("$(printf '%-18s %10s %8s %7s %8s %7s  %s' "$target" "$(number number_of_executed_units)" \
        "$(number average_exec_per_sec)" "$edges" "$features" "$(find "$corpus" -type f | wc -l)" "$found")")
done

printf '\n%-18s %10s %8s %7s %8s %7s  %s\n' target executions per-s edges features corpus find
printf '%s\n' "${rows[@]}"
[ ${#failed[@]} -eq 0 ] || die "found something: ${failed[*]} (the inputs: fuzz/artifacts)"
