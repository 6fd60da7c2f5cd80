#!/usr/bin/env bash
# The benchmark of scans: gradix compared with the machine's limits and with its peers, in one run.
#
#   bench.sh             everything: one table, the targets; target/bench/scan.csv and scan.svg
#   bench.sh NAME...     other benchmarks by name (append, fold, device, tokens), or arguments for cargo bench
#
# benches/scan/main.rs lists the variables that select cases. GRADIX_BENCH_PEERS=none skips the
# peers. The gradients are those of the demo, which runs first if they do not exist.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
if [ $# -gt 0 ]; then
    names=()
    while [ $# -gt 0 ] && [ -n "${1##-*}" ]; do
        if [ "$1" = device ]; then
            # The sketches of a model's gradients, beside the paper's passes in PyTorch.
            names+=(--features "$GRADIX_FEATURES")
            if [ "${GRADIX_BENCH_PEERS:-}" != none ]; then
                "$GRADIX_ROOT/scripts/install-packages.sh" bench
                "$GRADIX_ROOT/scripts/bench-python.sh" >/dev/null
                export GRADIX_BENCH_SHUFFLE="$GRADIX_ROOT/scripts/bench-shuffle.sh"
            fi
        fi
        if [ "$1" = routes ] || [ "$1" = tokens ]; then
            names+=(--features "$GRADIX_FEATURES")
        fi
        names+=(--bench "$1")
        shift
    done
    [ ${#names[@]} -gt 0 ] || names=(--benches)
    exec cargo bench --locked "${names[@]}" "$@"
fi

results=${GRADIX_BENCH_FOLDER:-target/bench}
case ${GRADIX_BENCH_PEERS:-} in
none) GRADIX_BENCH_PEERS= ;;
'')
    "$GRADIX_ROOT/scripts/install-packages.sh" bench
    # Before anything is measured: this may fail, and takes minutes the first time.
    "$GRADIX_ROOT/scripts/bench-python.sh" >/dev/null
    GRADIX_BENCH_PEERS="$GRADIX_ROOT/scripts/bench-peers.sh"
    ;;
esac
export GRADIX_BENCH_PEERS
demo=${GRADIX_BENCH_DEMO:-target/demo}
if [ "${GRADIX_BENCH_DATA:-gradients}" != gaussian ] && [ ! -f "$demo/queries.gradix/INDEX" ]; then
    say "running the demo, whose gradients are scanned"
    "$GRADIX_ROOT/scripts/demo.sh"
fi

started=$SECONDS
cargo bench --locked --bench scan
say "measured in $((SECONDS - started)) s"
python3 "$GRADIX_ROOT/scripts/bench-report.py" "$results/scan.csv" "$results/scan.svg"
say "$results/scan.csv and $results/scan.svg"
