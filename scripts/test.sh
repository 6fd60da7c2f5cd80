#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Arguments go to the test runner of the
# main suite (and then only that suite runs), e.g. `scripts/test.sh commit_survives`.
#
# Set for the tests:
#   GRADIX_TEST_WGPU        run: a wgpu device must be there; skip: do not look for one
#   GRADIX_TEST_BROWSER     skip: do not look at the report in a browser
#   GRADIX_PYTHON           the interpreter for format-spec/reader.py
#   GRADIX_PYTHON_TABLES    that with numpy, pyarrow and safetensors, for tests/formats.rs
#   GRADIX_BROWSER_PYTHON   the interpreter that drives the browser
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

started=$SECONDS
"$GRADIX_ROOT/scripts/install-packages.sh" test
if [ -z "${GRADIX_TEST_WGPU:-}" ]; then
    if state=$("$GRADIX_ROOT/scripts/wgpu-state.sh"); then
        GRADIX_TEST_WGPU=run
    else
        GRADIX_TEST_WGPU=skip
    fi
else
    state="GRADIX_TEST_WGPU=$GRADIX_TEST_WGPU was set by the caller"
fi
export GRADIX_TEST_WGPU
tell_wgpu() {
    if [ "$GRADIX_TEST_WGPU" = skip ]; then
        shout "The wgpu tests are SKIPPED: $state." "Everything else is tested."
    else
        say "wgpu tests: run ($state)"
    fi
}
tell_wgpu
GRADIX_PYTHON=$("$GRADIX_ROOT/scripts/python-environment.sh") || die "the second reader's Python environment could not be made"
export GRADIX_PYTHON
GRADIX_PYTHON_TABLES=$("$GRADIX_ROOT/scripts/python-environment.sh" formats-python "$GRADIX_ROOT/scripts/formats-requirements.txt") ||
    die "the Python environment with pyarrow could not be made"
export GRADIX_PYTHON_TABLES
browser_python() { "$GRADIX_ROOT/scripts/python-environment.sh" browser-python "$GRADIX_ROOT/scripts/browser-requirements.txt"; }
if [ "${GRADIX_TEST_BROWSER:-}" = skip ]; then
    GRADIX_BROWSER_PYTHON=""
    browser="GRADIX_TEST_BROWSER=skip was set by the caller"
elif [ -z "${GRADIX_BROWSER_PYTHON:-}" ] && browser=$("$GRADIX_ROOT/scripts/browser-state.sh"); then
    GRADIX_BROWSER_PYTHON=$(browser_python) || browser="selenium could not be installed"
fi
export GRADIX_BROWSER_PYTHON=${GRADIX_BROWSER_PYTHON:-}
tell_browser() {
    if [ -z "$GRADIX_BROWSER_PYTHON" ]; then
        shout "The report's page is NOT looked at, its tests are SKIPPED: $browser." "Everything else is tested."
    else
        say "browser tests: run (${browser:-$GRADIX_BROWSER_PYTHON})"
    fi
}
tell_browser
use_rocksdb

# nextest runs the tests of all binaries side by side and prints one summary; it is used where it
# is installed and never needed.
if cargo nextest --version >/dev/null 2>&1; then
    run=(cargo nextest run --no-fail-fast)
else
    run=(cargo test --no-fail-fast --lib --bins --tests --examples)
fi

if [ $# -gt 0 ]; then
    "${run[@]}" --locked --workspace --features "$GRADIX_FEATURES" "$@"
    exit
fi

say "the lean engine: dependencies of the default features"
"$GRADIX_ROOT/scripts/check-lean.sh"

say "the test suite (features: $GRADIX_FEATURES)"
"${run[@]}" --locked --workspace --features "$GRADIX_FEATURES"

say "the quickstart"
cargo build --quiet --locked --workspace --features "$GRADIX_FEATURES" --example quickstart
"$CARGO_TARGET_DIR/debug/examples/quickstart" >/dev/null

say "the documentation's examples"
cargo test --locked --workspace --features "$GRADIX_FEATURES" --doc

"$GRADIX_ROOT/scripts/python.sh" test

tell_wgpu
tell_browser
say "all tests passed, in $((SECONDS - started)) s with building"
