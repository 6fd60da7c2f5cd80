# shellcheck shell=bash
# Sourced by the other scripts: where things are cached, how messages look, and the environment
# in which cargo links the cached RocksDB. Needs bash; sets no traps and runs nothing by itself.

if [ -z "${BASH_VERSION:-}" ]; then
    echo "scripts/environment.sh needs bash" >&2
    exit 1
fi

GRADIX_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export GRADIX_ROOT

say() { printf '==> %s\n' "$*"; }
# A notice that must not drown in a build log.
shout() {
    printf '\n**********************************************************************\n' >&2
    local line
    for line in "$@"; do printf '** %s\n' "$line" >&2; done
    printf '**********************************************************************\n\n' >&2
}
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A shell that never read rustup's profile still finds cargo where rustup puts it.
if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    export PATH
fi
command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust 1.95 or newer with rustup, then run this again"

# One cache for all checkouts, so that a clean checkout rebuilds neither RocksDB nor burn.
if [ -z "${GRADIX_CACHE:-}" ]; then
    GRADIX_CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/gradix"
fi
mkdir -p "$GRADIX_CACHE" || die "cannot create the cache folder $GRADIX_CACHE; set GRADIX_CACHE to another one"
GRADIX_CACHE=$(cd "$GRADIX_CACHE" && pwd)
export GRADIX_CACHE
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$GRADIX_CACHE/target}"
# Programs that the scripts build for themselves.
export GRADIX_TOOLS="$GRADIX_CACHE/tools"

# The tests, clippy and the docs share this feature set, for the whole workspace (the packages selected
# decide on the features of what they share), and with it every built crate; the demo too,
# where they were built first.
# It includes `burn`. (`cuda` cannot be built everywhere: its build script wants LLVM.)
export GRADIX_FEATURES=wgpu,serde,cli

# Points cargo at the RocksDB archive in the cache, building it first if it is not there. A caller
# that sets ROCKSDB_LIB_DIR overrides it.
use_rocksdb() {
    if [ -n "${ROCKSDB_LIB_DIR:-}" ]; then
        [ -f "$ROCKSDB_LIB_DIR/librocksdb.a" ] || die "ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR holds no librocksdb.a"
    else
        ROCKSDB_LIB_DIR=$("$GRADIX_ROOT/scripts/build-rocksdb.sh") || die "RocksDB could not be built"
    fi
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
    # With an include folder of its own librocksdb-sys would generate bindings from foreign headers.
    unset ROCKSDB_INCLUDE_DIR ROCKSDB_COMPILE
}
