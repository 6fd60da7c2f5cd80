#!/usr/bin/env bash
# Measures the paper's 40 passes in PyTorch: `bench-shuffle.sh ELEMENTS DIMS RUNS`, as benches/device.rs calls it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python=$("$GRADIX_ROOT/scripts/bench-python.sh")
exec "$python" "$GRADIX_ROOT/scripts/bench-shuffle.py" "$@"
