#!/usr/bin/env bash
# Measures the peers on the data of one case: `bench-peers.sh FOLDER TABLE`, as benches/scan calls it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

python=$("$GRADIX_ROOT/scripts/bench-python.sh")
# Huge pages for what the peers allocate, as far as they can be told.
export THP_MEM_ALLOC_ENABLE=1
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
exec "$python" "$GRADIX_ROOT/scripts/bench-peers.py" "$@"
