#!/usr/bin/env bash
# Builds RocksDB's C++ once and keeps the archive in the user's cache; prints the folder it is in.
#
# cargo would build it anew for every profile and target folder, file by file, at about 25 CPU-minutes
# each. librocksdb-sys links a ready archive instead when ROCKSDB_LIB_DIR says where one is.
#
# Most of those minutes go into reading the same headers again for each of some 340 files. So the
# files are compiled some twenty at a time, by a source that includes them one after the other.
# RocksDB's own CI compiles and tests all of them as one such source (`make unity_test`). The crate's
# build script is kept, and with it every flag and definition, the optimisation too: a copy of the
# crate is built whose list of sources names the joined ones. Where that fails, the crate is built as
# it is.
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

build="$GRADIX_CACHE/rocksdb-build"
joined="$build/joined-$version"
# Of sources in one joined source. More would save little more, and take the compiler more than the
# 0.6 GB that it takes now, for each core (1.2 GB with g++).
joined_bytes=500000
messages=$(mktemp)
trap 'rm -f "$messages"; rm -rf "$joined.$$"' EXIT

# Makes a package in $joined that depends on a copy of the crate with joined sources, and nothing else.
# Runs inside a condition, where `set -e` has no effect, so every step is checked.
join_sources() {
    [ -f "$joined/Cargo.toml" ] && return 0
    local manifest new="$joined.$$"
    manifest=$(cargo metadata --locked --format-version 1 --filter-platform "$host" |
        grep -o '"manifest_path":"[^"]*librocksdb-sys-[^"]*"' | head -n 1 | cut -d '"' -f 4) &&
        mkdir -p "$new/src" && : >"$new/src/lib.rs" &&
        # The versions stay those of our Cargo.lock: cargo keeps what a lock file names, and is left
        # nothing else by --offline below.
        cp Cargo.lock "$new/" && cp -R "$(dirname "$manifest")" "$new/librocksdb-sys" || return 1
    cat >"$new/Cargo.toml" <<END || return 1
[package]
name = "joined"
version = "0.0.0"
edition = "2024"

[workspace]
exclude = ["librocksdb-sys"]

[dependencies.librocksdb-sys]
path = "librocksdb-sys"
default-features = false
features = ["${features//,/\", \"}"]

# As in our Cargo.toml, or nothing that is built here serves the other builds. No opt-level for "*": it
# would outrank that of build-override.
[profile.dev]
opt-level = 3
incremental = false
[profile.dev.package."*"]
debug = false
debug-assertions = false
overflow-checks = false
[profile.dev.build-override]
opt-level = 0
debug = false
END
    # The build script adds a build_version.cc of the crate's own.
    (cd "$new/librocksdb-sys/rocksdb" &&
        grep -v '^util/build_version.cc$' ../rocksdb_lib_sources.txt | xargs wc -c |
        awk -v most=$joined_bytes '$2 != "total" {
                bytes += $1
                if (!name || bytes > most) { name = sprintf("joined_%02d.cc", ++count); bytes = $1; print name }
                printf "#include \"%s\"\n", $2 > name
            }' >../joined.txt && mv ../joined.txt ../rocksdb_lib_sources.txt) || return 1
    # Renamed into place. Where another run was faster, its copy is as good.
    [ -d "$joined" ] || mv "$new" "$joined"
}

build_joined() {
    join_sources || return 1
    # clang is there for bindgen, and takes two thirds of the time that g++ takes. No warnings, because
    # cargo shows those of a crate that does not come from a registry.
    if [ -z "${CXX:-}" ] && command -v clang++ >/dev/null 2>&1; then
        export CXX=clang++
    fi
    export CXXFLAGS="${CXXFLAGS:-} -w"
    cargo_build --offline --manifest-path "$joined/Cargo.toml"
}

# cargo_build ARGUMENTS: prints the folder of the archive. In the target folder of all else, which
# then finds most of what bindgen depends on. Concurrent runs are safe: cargo locks that folder, and
# the second run finds everything built.
cargo_build() {
    env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u ROCKSDB_INCLUDE_DIR -u ROCKSDB_COMPILE \
        cargo build "$@" --message-format json-render-diagnostics >"$messages" || return
    grep '"reason":"build-script-executed"' "$messages" | grep 'librocksdb-sys' |
        sed -n 's/.*"out_dir":"\([^"]*\)".*/\1/p' | tail -n 1
}

say "building RocksDB ($version) once, into $archive_dir: about 6 CPU-minutes" >&2
started=$SECONDS
mkdir -p "$build"
log="$build/joined.log"
status=0
out_dir=$(build_joined 2>"$log") || status=$?
# Ended by a signal is no reason for the long way.
[ "$status" -lt 128 ] || exit "$status"
if [ "$status" -ne 0 ]; then
    say "RocksDB's sources do not compile joined (see $log): once more, file by file, in about 25 CPU-minutes" >&2
    out_dir=$(cargo_build --locked --package librocksdb-sys)
fi
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
