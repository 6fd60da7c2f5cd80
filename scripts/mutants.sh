#!/usr/bin/env bash
# Breaks the engine on purpose and looks whether a test notices: `mutants.sh [NAME...]`, all by default (about an hour).
# scripts/mutants.py has the list. Ends with "N passed, N failed"; passed are those that a test has caught.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" test
cargo nextest --version >/dev/null 2>&1 || die "cargo-nextest is missing: cargo install cargo-nextest"
GRADIX_PYTHON=$("$GRADIX_ROOT/scripts/python-environment.sh")
export GRADIX_PYTHON GRADIX_TEST_WGPU=skip
use_rocksdb
exec python3 scripts/mutants.py "$@"
