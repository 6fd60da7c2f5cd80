#!/usr/bin/env bash
# The Python package: builds its wheel, and tests that.
#
#   python.sh test [ARGUMENTS]   builds the wheel in the profile of the tests, and runs pytest against it, with the
#                                arguments: with current packages, and with the numpy and torch of the system
#   python.sh wheel              builds the wheel that users get, optimised, and prints its path
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

what=${1:-}
case $what in test | wheel) shift ;; *) die "usage: python.sh test [ARGUMENTS] | wheel" ;; esac

use_rocksdb
environment() { "$GRADIX_ROOT/scripts/python-environment.sh" "$@"; }
maturin=$(environment maturin "$GRADIX_ROOT/scripts/maturin-requirements.txt") || die "maturin could not be installed"

# Builds the wheel with maturin's arguments into an empty folder, and prints its path.
build() {
    local folder=$CARGO_TARGET_DIR/wheels/$what
    rm -rf "$folder"
    "$maturin" -m maturin build --quiet --locked --manifest-path python/Cargo.toml --out "$folder" "$@" >&2 || return
    printf '%s\n' "$folder"/*.whl
}

if [ "$what" = wheel ]; then
    build --release --strip
    exit
fi

say "the wheel"
wheel=$(build --profile dev --compatibility linux) || die "the wheel could not be built"

# In a folder of its own, since the environments in the cache are those of all checkouts.
site=$CARGO_TARGET_DIR/wheels/site
rm -rf "$site"
"$maturin" -m pip install --quiet --disable-pip-version-check --no-deps --no-index --target "$site" "$wheel"
run() { PYTHONPATH="$site" "$1" -m pytest --quiet -p no:cacheprovider python/tests "${@:2}"; }

current=$(environment python-current "$GRADIX_ROOT/scripts/python-current-requirements.txt") ||
    die "the packages that the Python tests need could not be installed"
say "the Python tests, with current packages"
run "$current" "$@"

# The interpreter that the system's packages are of; another one may come first on the PATH.
system=/usr/bin/python3
if [ -x "$system" ] && "$system" -c 'import ensurepip, numpy, torch, venv' >/dev/null 2>&1; then
    system=$(environment python-system "$GRADIX_ROOT/scripts/python-system-requirements.txt" "$system" --system-site-packages) ||
        die "the packages that the Python tests need could not be installed"
    say "the Python tests, with the system's numpy and torch ($("$system" -c 'import numpy, torch; print(numpy.__version__, torch.__version__)'))"
    run "$system" "$@"
else
    shout "The Python tests of PyTorch are SKIPPED: $system has no torch and numpy (Debian: python3-torch python3-numpy)." \
        "Everything else is tested."
fi
