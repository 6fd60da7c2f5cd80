#!/usr/bin/env bash
# Builds RocksDB's C++ once into the user's cache, and prints the archive's folder.
#
# cargo would rebuild it for every profile and target folder, in about 25 CPU-minutes each.
# librocksdb-sys links an existing archive if ROCKSDB_LIB_DIR is set to its folder.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

# Version and features as cargo resolved them, e.g. "librocksdb-sys v0.19.0+11.8.1|bindgen-runtime,zstd".
resolved=$(cargo tree --locked --depth 0 --package librocksdb-sys --format '{p}|{f}' | head -n 1)
version=${resolved%%|*}
version=${version##* v}
features=${resolved#*|}
[ -n "$version" ] || die "Cargo.lock names no librocksdb-sys"
host=$(rustc -vV | sed -n 's/^host: //p')

archive_dir="$GRADIX_CACHE/rocksdb-$version"
archive="$archive_dir/librocksdb.a"
stamp="$archive_dir/built-for"
# An archive of other features would link, and then refuse compressed data at run time.
wanted="librocksdb-sys $version features=$features host=$host"

if [ -f "$archive" ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then
    printf '%s\n' "$archive_dir"
    exit 0
fi

say "building RocksDB ($version) once, into $archive_dir: about 25 CPU-minutes" >&2
started=$SECONDS
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
# Concurrent runs are safe: cargo locks the target folder, and the second run finds it built.
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_INCLUDE_DIR -u ROCKSDB_COMPILE \
    CARGO_TARGET_DIR="$GRADIX_CACHE/rocksdb-build" \
    cargo build --locked --package librocksdb-sys --message-format json-render-diagnostics >"$messages"
out_dir=$(grep '"reason":"build-script-executed"' "$messages" | grep 'librocksdb-sys' |
    sed -n 's/.*"out_dir":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -f "$out_dir/librocksdb.a" ] || die "cargo built librocksdb-sys but left no archive in '$out_dir'"

# Renamed into place, stamp last: a killed copy never looks like a finished one.
mkdir -p "$archive_dir"
rm -f "$stamp"
cp "$out_dir/librocksdb.a" "$archive.$$"
mv -f "$archive.$$" "$archive"
printf '%s\n' "$wanted" >"$stamp.$$"
mv -f "$stamp.$$" "$stamp"
say "RocksDB built in $((SECONDS - started)) s" >&2
printf '%s\n' "$archive_dir"
