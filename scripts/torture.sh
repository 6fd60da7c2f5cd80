#!/usr/bin/env bash
# The long run of tests/torture: power cuts, faults, kills, short-lived writers, crowds, one after the other.
# Prints the summary of each; ends with the number that passed and that failed.
#
#   TORTURE_MINUTES    stop power cuts, kills and crowds early, so that all of it takes about so long
#   TORTURE_STATES     states of the disk to try (1000000)
#   TORTURE_KILLS      writers to kill (10000)
#   TORTURE_CYCLES     short-lived writers (1000)
#   TORTURE_EXAMPLES   examples in each of three commits beside readers (1000000)
#   TORTURE_SEED       another seed gives other operations and other states (1)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$GRADIX_ROOT"

"$GRADIX_ROOT/scripts/install-packages.sh" build
use_rocksdb
minutes=${TORTURE_MINUTES:-0}
run=(cargo test --quiet --locked --features "$GRADIX_FEATURES" --test torture)
"${run[@]}" --no-run
passed=0
failed=0

# torture NAME PARTS [VARIABLE=VALUE...]: one test, with so many tenths of the time.
torture() {
    local name=$1 parts=$2
    shift 2
    [ "$minutes" = 0 ] || set -- "$@" "GRADIX_TORTURE_LIMIT=$((minutes * 6 * parts))"
    say "$name"
    if env GRADIX_TORTURE_SEED="${TORTURE_SEED:-1}" "$@" "${run[@]}" -- --nocapture --exact "$name"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
}

crowd=$((minutes == 0 ? 300 : minutes * 6))
torture power_cut_at_any_moment_keeps_what_was_acknowledged 5 GRADIX_TORTURE_STATES="${TORTURE_STATES:-1000000}"
torture call_that_fails_once_loses_nothing 1 GRADIX_TORTURE_FAULTS=0
torture killed_writers_lose_nothing_and_leave_nothing 2 GRADIX_TORTURE_KILLS="${TORTURE_KILLS:-10000}"
torture short_lived_writers_leave_nothing 0 GRADIX_TORTURE_CYCLES="${TORTURE_CYCLES:-1000}"
torture reader_process_never_sees_half_a_commit 1 GRADIX_TORTURE_SECONDS="$crowd"
torture reader_thread_keeps_its_snapshot 1 GRADIX_TORTURE_SECONDS="$crowd"
torture great_commit_is_read_beside_its_writer 0 GRADIX_TORTURE_EXAMPLES="${TORTURE_EXAMPLES:-1000000}"
say "$passed passed, $failed failed"
[ "$failed" = 0 ]
